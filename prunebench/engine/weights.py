"""Compressed weights of a layer: packed once, their offsets kept for every layout in use."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from prunebench.engine.native_loader import native

MOST = 65535  # what a 16-bit offset reaches, in lane vectors


class Pack:
    """Weights compressed in blocks of so many channels, and their offsets in every layout in use."""

    def __init__(self, flat: np.ndarray, taps: tuple[int, int], groups: int, block: int):
        self.native = native().pack(flat, *taps, groups, block)
        info = native().info(self.native)
        self.block, self._bytes, self._nnz = int(info["widest"]), int(info["bytes"]), int(info["nnz"])
        self._taps = taps
        self._offsets: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Values, counts, offsets."""
        return self._bytes + 2 * self._nnz * max(0, len(self._offsets) - 1)

    def unpacked(self, rows: int, columns: int) -> np.ndarray:
        """The matrix again. ValueError: not a matrix of this size."""
        out = np.empty((rows, columns), np.float32)
        native().unpack(self.native, out)
        return out

    def offsets(self, plane: int, row: int, dilation: tuple[int, int]) -> Any:
        """The offsets for an input of this layout. ValueError: too large for 16 bits."""
        key = (plane, row if self._taps[0] > 1 else 1, dilation[0], dilation[1] if self._taps[1] > 1 else 1)
        with self._lock:
            if key not in self._offsets:
                self._offsets[key] = native().offsets(self.native, *key)
            return self._offsets[key]


class Weights:
    """A conv or linear weight (rows, channels per group, kh, kw) float32, zeros dropped once it is settled.

    idle: the share of zeros among the layer's inputs, as far as they were seen.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, groups: int):
        self.shape = tuple(int(v) for v in weight.shape)
        self.rows, self.chans = self.shape[0], self.shape[1] if len(self.shape) > 1 else 1
        self.taps = (self.shape[2], self.shape[3]) if len(self.shape) == 4 else (1, 1)
        self.groups = groups
        self.bias = None if bias is None else np.array(bias, np.float32)
        self._flat: np.ndarray | None = np.ascontiguousarray(weight.reshape(self.rows, -1), np.float32)
        kept = np.count_nonzero(np.abs(self._flat) >= np.finfo(np.float32).tiny, axis=1)
        self.nnz = int(kept.sum())
        self._upto = np.concatenate([[0], np.cumsum(kept)])
        self._packs: dict[int, Pack] = {}
        self._columns: Pack | None = None
        self.idle = 0.0
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
        """Resident bytes: the packs in use, the bias, the weight itself until settled."""
        own = 0 if self._flat is None else self._flat.nbytes
        packs = [*self._packs.values(), *([] if self._columns is None else [self._columns])]
        return own + sum(p.nbytes for p in packs) + (0 if self.bias is None else self.bias.nbytes)

    @property
    def block(self) -> int | None:
        """Channels of a block once that is settled."""
        return None if self._flat is not None or not self._packs else next(iter(self._packs.values())).block

    def pack(self, block: int) -> Pack:
        """The weights in blocks of `block` channels; once settled, in those settled on."""
        with self._lock:
            if self._flat is None and self._packs:
                return next(iter(self._packs.values()))
            if block not in self._packs:
                self._packs[block] = Pack(self._whole(), self.taps, self.groups, block)
            return self._packs[block]

    def columns(self) -> Pack:
        """A matrix's weights by columns, each a row of the pack: for inputs of which many are zero."""
        with self._lock:
            if self._columns is None:
                self._columns = Pack(np.ascontiguousarray(self._whole().T), (1, 1), 1, self.rows)
            return self._columns

    def _whole(self) -> np.ndarray:
        """The weight with its zeros; of a settled one, from what is packed."""
        if self._flat is not None:
            return self._flat
        if self._packs:
            return next(iter(self._packs.values())).unpacked(self.rows, self.chans)
        assert self._columns is not None
        return self._columns.unpacked(self.chans, self.rows).T.copy()

    @property
    def by_columns(self) -> bool:
        """Whether one image is sooner done by columns; rates measured on one core, in cycles.

        Not where the weights are settled by rows: what was compiled for batches keeps one pack for single images too.
        """
        if self._flat is None and self._packs:
            return False
        if not 0.0 < self.idle < 1.0 or self.nnz > 4096 * self.rows:  # an all-zero example says nothing
            return False
        columns = (1.0 - self.idle) * (1.1 * self.nnz + 18 * self.chans) + 1.5 * self.chans
        return columns < 0.8 * (0.95 * self.nnz + 10 * self.rows)

    def restart(self) -> None:
        """Forgets what was packed while trying; nothing once settled."""
        with self._lock:
            if self._flat is not None:
                self._packs, self._columns = {}, None

    def settle(self, pack: Pack) -> None:
        """Keeps this pack and nothing else; later calls change nothing."""
        with self._lock:
            if self._flat is not None:
                kept = pack is self._columns
                self._flat, self._packs, self._columns = (
                    None, {} if kept else {pack.block: pack}, self._columns if kept else None
                )  # fmt: skip

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
