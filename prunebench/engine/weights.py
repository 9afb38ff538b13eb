"""Compressed weights of a layer: packed once, their offsets kept for every layout in use."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from prunebench.engine.native_loader import native

MOST = 65535  # what a 16-bit offset reaches, in lane vectors


class Weights:
    """A conv or linear weight (rows, channels per group, kh, kw) float32, zeros dropped once `pack` is called."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, groups: int, dense: bool = False):
        self.shape = tuple(int(v) for v in weight.shape)
        self.rows, self.chans = self.shape[0], self.shape[1] if len(self.shape) > 1 else 1
        self.taps = (self.shape[2], self.shape[3]) if len(self.shape) == 4 else (1, 1)
        self.groups = groups
        self.dense = dense  # kept as it is although few of its weights are zero
        self.bias = None if bias is None else np.array(bias, np.float32)
        self._flat: np.ndarray | None = np.ascontiguousarray(weight.reshape(self.rows, -1), np.float32)
        kept = np.count_nonzero(np.abs(self._flat) >= np.finfo(np.float32).tiny, axis=1)
        self.nnz = int(kept.sum())
        self._upto = np.concatenate([[0], np.cumsum(kept)])
        self.packed: Any = None
        self.block: int | None = None
        self._bytes = 0
        self._offsets: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    @property
    def per_channel(self) -> float:
        """Nonzeros of a row in one input channel, on average."""
        return self.nnz / max(1, self.rows * self.chans)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        size = int(np.prod(self.shape))
        return 1.0 - self.nnz / size if size else 0.0

    @property
    def nbytes(self) -> int:
        """Resident bytes: values, counts, offsets of every layout in use, bias."""
        bias = 0 if self.bias is None else self.bias.nbytes
        if self._flat is not None:
            return self._flat.nbytes + bias
        return self._bytes + 2 * self.nnz * max(0, len(self._offsets) - 1) + bias

    def pack(self, block: int) -> None:
        """Compresses the weight in blocks of `block` channels; later calls change nothing."""
        with self._lock:
            if self._flat is None:
                return
            self.packed = native().pack(self._flat, *self.taps, self.groups, block)
            info = native().info(self.packed)
            self._bytes, self.block = int(info["bytes"]), int(info["widest"])
            self._flat = None

    def offsets(self, plane: int, row: int, dilation: tuple[int, int]) -> Any:
        """The offsets for an input of this layout. ValueError: too large for 16 bits."""
        key = (plane, row if self.taps[0] > 1 else 1, dilation[0], dilation[1] if self.taps[1] > 1 else 1)
        with self._lock:
            if key not in self._offsets:
                self._offsets[key] = native().offsets(self.packed, *key)
            return self._offsets[key]

    def fits(self, plane: int, row: int, dilation: tuple[int, int], block: int) -> bool:
        """Whether blocks of so many channels can be addressed in an input of this layout."""
        kh, kw = self.taps
        if kh > 1 and block * plane > dilation[0] * row:
            return False
        return (block - 1) * plane + (kh - 1) * dilation[0] * row + (kw - 1) * dilation[1] <= MOST

    def parts(self, count: int) -> np.ndarray:
        """Row numbers that cut the rows into `count` parts of like numbers of nonzeros."""
        marks = np.searchsorted(self._upto, self.nnz * np.arange(1, count) / count)
        return np.concatenate([[0], np.maximum.accumulate(marks), [self.rows]]).astype(np.int32)
