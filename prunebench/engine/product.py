"""csr_matmul: the engine's sparse product on plain arrays, numpy or CPU torch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from prunebench.engine.native_loader import native

_INDEX = (np.dtype(np.int32), np.dtype(np.int64))
_FLOAT = (np.dtype(np.float32),)


def _array(value: Any, name: str, dtypes: tuple[np.dtype, ...], ndim: int) -> np.ndarray:
    """`value` as a numpy view, its dtype, dimensions and contiguity checked."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise TypeError(f"{name}: must be a strided CPU tensor, not {value.layout} on {value.device}")
        try:
            value = _whole(value.detach()).resolve_neg().numpy()
        except (TypeError, RuntimeError):  # a dtype that numpy has no name for, a conjugate, a tensor without memory
            right = str(value.dtype).removeprefix("torch.") in [d.name for d in dtypes]
            what = "a tensor without memory of its own" if right else f"dtype {value.dtype}, must be {_words(dtypes)}"
            raise TypeError(f"{name}: {what}") from None
        except ValueError:  # more elements than its memory holds
            raise ValueError(f"{name}: its memory is smaller than its shape; it was resized") from None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array; pass .filled(0) or .data")
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: must be a numpy array or a torch tensor, not {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: dtype {value.dtype}, must be {_words(dtypes)}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: {value.ndim} dimensions, must have {ndim}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{name}: not C-contiguous; pass a contiguous copy")
    return value


def _whole(tensor: Any) -> Any:
    """The tensor. ValueError: its storage was resized to less than it needs, so numpy would read beyond it."""
    reach = tensor.storage_offset() + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    if tensor.numel() and tensor.untyped_storage().nbytes() < reach * tensor.element_size():
        raise ValueError
    return tensor


def _words(dtypes: tuple[np.dtype, ...]) -> str:
    return " or ".join(d.name for d in dtypes)


def _size(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: must be an integer, not {type(value).__name__}")
    return int(value)


def csr_matmul(
    indptr: Any,
    indices: Any,
    data: Any,
    shape: tuple[int, int],
    dense: Any,
    bias: Any = None,
    relu: bool = False,
    threads: int = 1,
) -> Any:
    """A CSR matrix times a dense one: act(W @ dense + bias), as a new (rows, n) float32 array of `dense`'s kind.

    indptr (rows + 1,), indices (nnz,): int32 or int64; data (nnz,), dense (cols, n), bias (rows,): float32; all
    C-contiguous numpy arrays or CPU torch tensors; shape = (rows, cols). `threads` above the core count is clamped.
    Duplicate entries add up, order within a row is free. A column that no nonzero names isn't read: a NaN there
    doesn't reach the output. Subnormal values may count as zero (they do where dense has more than one column).
    TypeError: a wrong dtype or kind. ValueError: a wrong value, shape or index. BackendUnavailable: no C extension.
    """
    module = native()
    ptr = _array(indptr, "indptr", _INDEX, 1)
    idx = _array(indices, "indices", _INDEX, 1)
    val = _array(data, "data", _FLOAT, 1)
    x = _array(dense, "dense", _FLOAT, 2)
    b = None if bias is None else _array(bias, "bias", _FLOAT, 1)
    if not isinstance(shape, (tuple, list, np.ndarray)):
        raise TypeError(f"shape: must be (rows, cols), not {type(shape).__name__}")
    if not isinstance(relu, (bool, int, np.bool_)):
        raise TypeError(f"relu: must be True or False, not {type(relu).__name__}")
    if len(shape) != 2:
        raise ValueError(f"shape: {len(shape)} numbers, must be (rows, cols)")
    rows, cols = _size(shape[0], "shape[0]"), _size(shape[1], "shape[1]")
    threads = _size(threads, "threads")
    if rows < 0 or cols < 0:
        raise ValueError(f"shape: ({rows}, {cols}) has a negative size")
    if threads < 1:
        raise ValueError(f"threads: {threads}, must be at least 1")
    for name, have, want in (
        ("indptr", ptr.shape[0], rows + 1),
        ("indices", idx.shape[0], val.shape[0]),
        ("dense", x.shape[0], cols),
        ("bias", rows if b is None else b.shape[0], rows),
    ):
        if have != want:
            other = "data" if name == "indices" else f"the shape ({rows}, {cols})"
            raise ValueError(f"{name}: length {have}, but {other} asks for {want}")
    if max(rows, cols, x.shape[1]) > 2**31 - 1:
        raise ValueError("shape: rows, cols and n must be below 2147483648")
    if cols == 0:  # the kernel's masked end of a row reads the first input, whatever the mask: there must be one
        x = np.zeros((1, x.shape[1]), np.float32)[:0]
    try:
        out = np.empty((rows, x.shape[1]), np.float32)
    except MemoryError:
        raise ValueError(f"shape: an output of {rows} x {x.shape[1]} float32 doesn't fit in memory") from None
    module.csr_matmul(ptr, idx, val, rows, cols, x, out, b, bool(relu), min(threads, module.cores()))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dense, torch.Tensor):
        return torch.from_numpy(out)
    return out


def isa() -> str:
    """Name of the kernels in use: avx512, avx2, neon or scalar (env PRUNEBENCH_ISA forces one).

    UsageError: PRUNEBENCH_ISA names none that this CPU runs. BackendUnavailable: no C extension.
    """
    return str(native().isa())
