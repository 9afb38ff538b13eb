"""One network stored every way: bytes beside general compressors and the entropy floor, what is lost, loading times."""

from __future__ import annotations

import gzip
import importlib.util
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prunebench import formats
from prunebench.errors import PrunebenchError
from prunebench.formats.sizes import floor_bytes
from prunebench.formats.values import WEIGHTS
from prunebench.reference import CheckFailed, Reference
from prunebench.state_dicts import load_state
from prunebench.timing import compare

if TYPE_CHECKING:
    from prunebench.datasets.base import Dataset

BASELINE = "safetensors"
FLOOR = "entropy floor"


def ways(
    state: Mapping[str, Tensor],
    model: nn.Module | None = None,
    example: Tensor | None = None,
    data: Dataset | None = None,
    seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """A row per way to store a state dict: name, values, bytes, smaller, gzip_bytes, zstd_bytes, and what was measured.

    smaller: dense safetensors' bytes over these. With a model whose state it is, relative_error of its outputs on the
    example batch (n, …), and with data its accuracy on the test split, both after loading; with seconds above 0, the
    time to load the file into the model, paired with safetensors' own loading. None: not measured, or not to be had.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = _write(state, Path(folder))
        rows = [_row(*way, path.read_bytes()) for way, path in files.items()]
        if model is not None:
            loads = _loads(files, model)
            _judge(rows, loads, model, example, data)
            if seconds > 0:
                _time(rows, loads, seconds)
            loads[BASELINE, None]()  # the model as it was given
    rows += [_row(name, None, content) for name, content in _foreign(state, model, example)]
    rows += [_row(FLOOR, values, floor_bytes(state, values)) for values in (None, *_narrower(state))]
    dense = next(row["bytes"] for row in rows if row["name"] == BASELINE)
    for row in rows:
        row["smaller"] = dense / row["bytes"]
    return rows


def zstd(content: bytes) -> bytes | None:
    """Compressed by Zstandard at its default level; None where neither Python nor the system has it."""
    if importlib.util.find_spec("compression") is not None:  # Python 3.14
        from compression.zstd import compress

        return compress(content)
    if importlib.util.find_spec("zstandard") is not None:
        import zstandard

        return zstandard.ZstdCompressor().compress(content)
    if shutil.which("zstd") is not None:
        return subprocess.run(["zstd", "-q", "-c"], input=content, stdout=subprocess.PIPE, check=True).stdout
    return None


def _row(name: str, values: str | None, content: bytes | int) -> dict[str, Any]:
    squeezed: dict[str, int | None] = {"gzip_bytes": None, "zstd_bytes": None}
    if isinstance(content, bytes):
        packed = zstd(content)
        squeezed["gzip_bytes"] = len(gzip.compress(content, 6))
        squeezed["zstd_bytes"] = None if packed is None else len(packed)
    measured = dict.fromkeys(("relative_error", "accuracy", "load_seconds", "load_speedup", "load_low", "load_high"))
    size = content if isinstance(content, int) else len(content)
    return {"name": name, "values": values, "bytes": size, **squeezed, **measured, "load_verdict": None}


def _narrower(state: Mapping[str, Tensor]) -> list[str]:
    """Values that store a weight of this state in fewer bytes than it has."""
    widest = max((t.element_size() for t in state.values() if t.dtype in WEIGHTS and t.ndim >= 2), default=0)
    return [name for name, dtype in formats.VALUES.items() if dtype.itemsize < widest]


def _write(state: dict[str, Tensor], folder: Path) -> dict[tuple[str, str | None], Path]:
    """Every file that a network can be loaded from, by (name, values)."""
    files: dict[tuple[str, str | None], Path] = {
        ("torch.save", None): folder / "state.pt",
        (BASELINE, None): folder / "state.safetensors",
    }
    torch.save(state, files["torch.save", None])
    safetensors.torch.save_file(state, files[BASELINE, None], {"format": "pt"})
    for format in formats.FORMATS:
        for values in (None, *_narrower(state)):
            if (format, values) != ("dense", None):
                files[format, values] = folder / f"{format}-{values}.safetensors"
                formats.save(state, files[format, values], format, values)
    return files


def _loads(
    files: Mapping[tuple[str, str | None], Path], model: nn.Module
) -> dict[tuple[str, str | None], Callable[[], Any]]:
    def of(read: Callable[[Path], Any], path: Path) -> Any:
        return load_state(model, read(path))

    readers: dict[str, Callable[[Path], Any]] = {
        "torch.save": partial(torch.load, weights_only=True),
        BASELINE: safetensors.torch.load_file,
    }
    return {
        way: partial(of, readers[way[0]], path) if way[0] in readers else partial(formats.load, path, model)
        for way, path in files.items()
    }


def _judge(
    rows: Iterable[dict[str, Any]],
    loads: Mapping[tuple[str, str | None], Callable[[], Any]],
    model: nn.Module,
    example: Tensor | None,
    data: Dataset | None,
) -> None:
    """Output error and accuracy after each load; CheckFailed where equal values give unequal weights."""
    from prunebench.training.loop import accuracy

    loads[BASELINE, None]()
    reference = Reference(model, example) if example is not None else None
    loaded: dict[str | None, dict[str, Tensor]] = {}
    found: dict[str | None, tuple[float | None, float | None]] = {}
    for row in rows:
        name, values = row["name"], row["values"]
        loads[name, values]()
        state = {n: t.clone() for n, t in model.state_dict().items()}
        if values not in found:
            loaded[values] = state
            found[values] = (
                None if reference is None else reference.error(model),
                None if data is None else accuracy(model, data, data.test),
            )
        # Formats differ in bytes, never in weights: −0 alone may have become 0, which == doesn't tell apart.
        if not all(torch.equal(state[n], loaded[values][n]) for n in state):
            raise CheckFailed(f"{name} with values {values or 'as they are'} does not give back what was stored")
        row["relative_error"], row["accuracy"] = found[values]


def _time(
    rows: Iterable[dict[str, Any]], loads: Mapping[tuple[str, str | None], Callable[[], Any]], seconds: float
) -> None:
    arms = {" ".join(filter(None, way)): load for way, load in loads.items()}
    found = compare(arms, BASELINE, seconds=seconds)
    for row in rows:
        one = found.get(" ".join(filter(None, (row["name"], row["values"]))))
        if one is None:
            row["load_seconds"] = next(iter(found.values())).baseline_seconds
        else:
            row |= {"load_seconds": one.seconds, "load_speedup": one.speedup, "load_low": one.low}
            row |= {"load_high": one.high, "load_verdict": one.verdict}


def _foreign(state: Mapping[str, Tensor], model: nn.Module | None, example: Tensor | None) -> list[tuple[str, bytes]]:
    """What others make of the network; its loading is another matter, so that only the bytes are told."""
    found = [(f"scipy save_npz{', compressed' if packed else ''}", _scipy(state, packed)) for packed in (False, True)]
    if model is not None and example is not None and importlib.util.find_spec("onnx") is not None:
        try:
            from prunebench.backends.onnxruntime import exported

            found.append(("ONNX", exported(model, example[:1])))
        except (PrunebenchError, RuntimeError):
            pass  # an operator that ONNX lacks: the row is absent
    return found


def _scipy(state: Mapping[str, Tensor], packed: bool) -> bytes:
    """A save_npz file for each weight, and one of NumPy's for the rest, one after the other."""
    import numpy as np
    from scipy import sparse

    file = io.BytesIO()
    rest: dict[str, Any] = {}
    for name, tensor in state.items():
        if tensor.dtype in (torch.float32, torch.float64) and tensor.ndim >= 2:
            one = io.BytesIO()
            sparse.save_npz(one, sparse.csr_matrix(tensor.flatten(1).numpy()), compressed=packed)
            file.write(one.getvalue())
        else:
            rest[name] = tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    one = io.BytesIO()
    save: Any = np.savez_compressed if packed else np.savez  # its stubs take every keyword for an option
    save(one, **rest)
    return file.getvalue() + one.getvalue()
