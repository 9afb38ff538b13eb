"""Uses an installed prunebench as somebody would: prune, compile, save, load; with --kernels its product alone."""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np


def kernels() -> None:
    """A product against numpy's, with and without threads; imports no torch."""
    from scipy import sparse

    import prunebench
    from prunebench.kernels import csr_matmul, isa

    rng = np.random.default_rng(0)
    for rows, columns, n in ((1, 1, 1), (70, 50, 33), (300, 784, 64)):
        matrix = sparse.random(rows, columns, density=0.3, format="csr", dtype=np.float32, random_state=rows)
        dense = rng.standard_normal((columns, n), dtype=np.float32)
        exact = matrix.astype(np.float64) @ dense.astype(np.float64)
        for threads in (1, 2):
            got = csr_matmul(matrix.indptr, matrix.indices, matrix.data, matrix.shape, dense, threads=threads)
            assert np.abs(got - exact).max() <= 1e-5 * max(1.0, np.abs(exact).max())
    assert (files("prunebench") / "py.typed").is_file()
    print(
        f"python {sys.version.split()[0]}: prunebench {prunebench.__version__} from a wheel, kernels {isa()} are right"
    )


def whole() -> None:
    """Prune, compile, compare with torch, save and load."""
    import torch

    import prunebench as pb

    assert "site-packages" in pb.__file__, f"this is {pb.__file__}, not what was installed"
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 64, 10)
    ).eval()
    x = torch.randn(4, 3, 8, 8)
    masks = pb.prune(model, 0.9)
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.9 * (432 + 10240))
    engine = pb.compile(model, x, backend="csr", threads=1)
    with torch.inference_mode():
        assert torch.allclose(engine(x), model(x), atol=1e-5)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            pb.save(model, path)
            copy = torch.nn.Sequential(
                torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 64, 10)
            ).eval()
            pb.load(path, copy)
            assert torch.equal(copy(x), model(x))


if __name__ == "__main__":
    kernels()
    if "--kernels" not in sys.argv:
        whole()
