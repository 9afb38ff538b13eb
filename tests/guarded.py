"""Arrays that begin or end where memory does: the page before or behind them can't be touched. A process of its own,
because a kernel that reads one byte too far kills it.

python tests/guarded.py csr|engine|overrun [ISA…]   exit 0: every case right; a signal: something was read outside
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys

import numpy as np

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_KEPT: list[mmap.mmap] = []


def guarded(values: np.ndarray, end: bool) -> np.ndarray:
    """A copy of an array whose last byte (or first) lies beside a page that can't be touched."""
    room = max(1, -(-values.nbytes // PAGE)) * PAGE
    whole = mmap.mmap(-1, room + 2 * PAGE)
    _KEPT.append(whole)
    at = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    for page in (at, at + PAGE + room):
        if _LIBC.mprotect(page, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (room - values.nbytes if end else 0)
    made = np.frombuffer(whole, values.dtype, values.size, offset).reshape(values.shape)
    made[...] = values
    return made


def csr(isa: str) -> None:
    """Every size of tile and rest, with each array at an end and at a beginning; the result's place is guarded too."""
    from prunebench.engine.native_loader import native

    module = native()
    module.use(isa)
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (3, 5), (7, 40), (2, 300)]
    columns = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 200]
    for (rows, cols), n, end in itertools.product(sizes, columns, (True, False)):
        for index, density in ((np.int32, 0.3), (np.int64, 1.0)):
            kept = rng.random((rows, cols)) < density
            indptr = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(index)
            indices = np.nonzero(kept)[1].astype(index)
            data = rng.standard_normal(len(indices)).astype(np.float32)
            dense = rng.standard_normal((cols, n)).astype(np.float32)
            bias = rng.standard_normal(rows).astype(np.float32)
            weights = np.zeros((rows, cols))
            weights[kept] = data
            given = [guarded(a, end) for a in (indptr, indices, data, dense, bias)]
            out = guarded(np.full((rows, n), np.nan, np.float32), end)
            for threads in (1, 2):
                module.csr_matmul(*given[:3], rows, cols, given[3], out, given[4], False, threads)
                want = weights @ dense.astype(np.float64) + bias[:, None]
                np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4)
        _release()
    for rows, cols, n in ((4000, 150_000, 2), (3, 70_000, 3)):  # hypersparse, and several blocks of columns
        indptr = np.minimum(np.arange(rows + 1), 3).astype(np.int64)
        indices, data = np.array([cols - 1, 0, cols - 1]), np.ones(3, np.float32)
        given = [guarded(a, True) for a in (indptr, indices, data, np.ones((cols, n), np.float32))]
        out = guarded(np.full((rows, n), np.nan, np.float32), True)
        module.csr_matmul(*given[:3], rows, cols, given[3], out, None, True, 1)
        assert out.sum() == 3 * n
        _release()


def engine(isa: str) -> None:
    """A small network from its weights to its output: input, output, weights and biases guarded."""
    import torch

    import prunebench as pb
    from prunebench.engine.native_loader import native

    native().use(isa)
    torch.set_num_threads(1)
    for seed, end in itertools.product(range(2), (True, False)):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 5, 3, padding=seed), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(5, 7, 3, stride=1 + seed), torch.nn.Flatten(), torch.nn.LazyLinear(3),
        )  # fmt: skip
        model(torch.ones(1, 3, 11, 13))
        for p in model.parameters():
            if p.dim() > 1:
                p.data[torch.rand(p.shape) < 0.8] = 0
            p.data = torch.from_numpy(guarded(p.detach().numpy(), end))
        model.eval().requires_grad_(False)
        made = pb.compile(model, torch.ones(1, 3, 11, 13), tune=False)
        double = {name: t.double() for name, t in model.state_dict().items()}
        for n in (1, 2, 3, 5, 16, 17):
            x = torch.from_numpy(guarded(torch.randn(n, 3, 11, 13).numpy(), end))
            want = torch.func.functional_call(model.double(), double, (x.double(),))
            model.float()
            results = [made(x).numpy()]
            if x.shape in made.engine._ready:  # else it goes in several parts
                _, program, chunks, threads = made.engine._ready[x.shape]
                results.append(guarded(np.full((n, 3), np.nan, np.float32), end))
                native().run(program, chunks, threads, None, x.data_ptr(), results[-1].ctypes.data)
            for got in results:
                np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4)


def overrun(isa: str) -> None:
    """One float beyond the end: must die, else the guards guard nothing."""
    array = guarded(np.ones(3, np.float32), end=True)
    print(ctypes.c_float.from_address(array.ctypes.data + array.nbytes).value)


def underrun(isa: str) -> None:
    array = guarded(np.ones(3, np.float32), end=False)
    print(ctypes.c_float.from_address(array.ctypes.data - 4).value)


def _release() -> None:
    _KEPT.clear()  # unmapped when the last array of it goes


if __name__ == "__main__":
    check = {"csr": csr, "engine": engine, "overrun": overrun, "underrun": underrun}[sys.argv[1]]
    for isa in sys.argv[2:] or [""]:
        check(isa)
        print(isa, "right")
