"""Bitmask encoding: one bit per weight and the nonzero values, 0.53 bytes per weight at 90 % in float32; −0 becomes 0.

The parts are named as in compressed-tensors' sparse-bitmask format: shape, compressed, bitmask, row_offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from prunebench.formats import compiled
from prunebench.formats.compiled import Target, content

VALUES = "compressed"
PARTS = ("shape", VALUES, "bitmask", "row_offsets")
CHOICES: tuple[str, ...] = ()
_CHUNK = 1 << 22  # weights decoded at a time: bounds the memory besides; smaller ones take longer


def encode(rows: Tensor) -> dict[str, Tensor]:
    """Parts of a matrix: bits are packed per row, least significant first; row_offsets int64 (rows,)."""
    kept = rows != 0
    return {
        # Of the matrix, not of a conv's weight: compressed-tensors packs the last dimension, and then can read it.
        "shape": torch.tensor(rows.shape, dtype=torch.int64),
        VALUES: rows[kept],
        "bitmask": torch.from_numpy(np.packbits(kept.numpy(), axis=1, bitorder="little")),
        "row_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])[:-1],
    }


def check(parts: Mapping[str, Tensor], rows: int, columns: int) -> None:
    """ValueError where the parts are not those of a matrix of this size."""
    bits, offsets = parts["bitmask"], parts["row_offsets"]
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (rows, (columns + 7) // 8):
        raise ValueError(f"the bitmask is {tuple(bits.shape)} {bits.dtype}, which does not fit ({rows}, {columns})")
    if offsets.dtype != torch.int64 or tuple(offsets.shape) != (rows,):
        raise ValueError("the row offsets are not the bitmask's")
    marked, beyond, others = _looked_at(bits, offsets, rows, columns)
    if beyond:
        raise ValueError("the bitmask marks weights beyond a row's end")
    if marked != len(parts[VALUES]):
        raise ValueError(f"the bitmask marks {marked} values, but {len(parts[VALUES])} are stored")
    if others:
        raise ValueError("the row offsets are not the bitmask's")


def spread(parts: Mapping[str, Tensor], target: Target) -> None:
    """Decode in C; ValueError where the file changed since it was checked."""
    compiled.decode.spread_bitmask(content(parts["bitmask"]), *target.words)


def positions(parts: Mapping[str, Tensor], rows: int, columns: int) -> Iterator[np.ndarray]:
    """Where the values stand in the flat matrix, some at a time: int64, increasing."""
    bits = parts["bitmask"].numpy()
    if columns % 8 == 0:  # no row's end to cut off: one long row, which unpacks several times as fast
        bits, columns = bits.reshape(-1, 1), 8
    step = max(1, _CHUNK // columns)
    for first in range(0, len(bits), step):
        some = bits[first : first + step]
        if columns % 8 == 0:
            flags = np.unpackbits(some.reshape(-1), bitorder="little")
        else:
            flags = np.unpackbits(some, axis=1, count=columns, bitorder="little")
        places = np.flatnonzero(flags.view(bool))
        places += first * columns
        yield places


def _looked_at(bits: Tensor, offsets: Tensor, rows: int, columns: int) -> tuple[int, int, int]:
    """(bits set, not 0 where one is beyond a row's end, not 0 where the offsets are others)."""
    if compiled.decode is not None and columns:
        found: tuple[int, int, int] = compiled.decode.check_bits(content(bits), content(offsets), rows, columns)
        return found
    beyond = columns % 8 and bool((bits[:, -1] >> columns % 8).any())
    counts = _counts(bits.numpy())
    return int(counts.sum()), int(beyond), int(not np.array_equal(offsets.numpy(), np.cumsum(counts) - counts))


def _counts(bits: np.ndarray) -> np.ndarray:
    """Bits set in each row, int64."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(bits).sum(1, dtype=np.int64)
    return np.unpackbits(bits, axis=1).sum(1, dtype=np.int64)
