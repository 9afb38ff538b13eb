"""Register tiles and channel blocks: which ones a convolution is cut into, by a model of the core's caches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

L1_LINES = 512  # of 64 bytes: 32 KB, a lane vector each
_CANDIDATES = 4
_NONZERO = 1.1  # cycles per nonzero beside its FMAs
_ROW = 12.0  # cycles per row and block beside its nonzeros
_PARTIAL = 2.2  # cycles to load and store a partial sum
_L2 = 0.85  # more cycles for an FMA whose operand comes from L2


@dataclass(frozen=True)
class Tiling:
    """A register tile of rows x columns lane vectors, and the channels of a block of the weights."""

    rows: int
    cols: int
    block: int
    cycles: float  # per lane vector of output and row of the weights, estimated


def _pieces(size: int, most: int) -> list[int]:
    count = -(-size // most)
    return [size * (i + 1) // count - size * i // count for i in range(count)]


def tiles(rh: int, rw: int, tiling: Tiling) -> np.ndarray:
    """(y, x, R, Q) of the tiles that cover a region, as the native program takes them."""
    out, y = [], 0
    for r in _pieces(rh, tiling.rows):
        x = 0
        for q in _pieces(rw, tiling.cols):
            out.append((y, x, r, q))
            x += q
        y += r
    return np.array(out, np.int32).reshape(-1)


def _blocks(chans: int) -> Iterator[int]:
    size = 2
    while size < chans:
        yield size
        size = max(size + 1, size * 5 // 4)
    yield chans


def _cycles(t: int, lines: int, chans: int, block: int, per_channel: float) -> float:
    nonzeros = per_channel * chans
    count = -(-chans // block)
    footprint = block * lines
    far = max(0.0, 1 - L1_LINES * 1.1 / footprint) if footprint else 0.0
    work = nonzeros * (t * (1 + _L2 * far) + _NONZERO)
    return (work + count * (_ROW + (_PARTIAL * t if count > 1 else 0.5 * t))) / t


@lru_cache(maxsize=8192)
def choose(
    rh: int, rw: int, taps: tuple[int, int], stride: tuple[int, int], chans: int, per_channel: float,
    maxq: tuple[int, ...], most_block: int, block: int | None,
) -> tuple[Tiling, ...]:  # fmt: skip
    """The tilings with the fewest estimated cycles, the best first; then others to try.

    per_channel: nonzeros of a row in one channel; maxq: widest tile for each number of rows; most_block: what 16-bit
    offsets reach; block: channels of a block when the weights are packed already.
    """
    found = []
    for rows in range(1, len(maxq)):
        for cols in range(1, maxq[rows] + 1):
            if rows > rh or cols > rw or (stride[1] > 2 and cols > 1):
                continue
            ys, xs = _pieces(rh, rows), _pieces(rw, cols)
            if max(ys) != rows or max(xs) != cols:
                continue
            lines = ((rows - 1) * stride[0] + taps[0]) * ((cols - 1) * stride[1] + taps[1])
            best: Tiling | None = None
            for size in [block] if block else _blocks(max(1, min(chans, most_block))):
                each = sum(
                    y * x * _cycles(y * x, lines, max(chans, 1), size, per_channel) for y in set(ys) for x in set(xs)
                    for _ in range(ys.count(y) * xs.count(x))
                )  # fmt: skip
                cycles = each / (rh * rw)
                if best is None or cycles < best.cycles:
                    best = Tiling(rows, cols, size, cycles)
            assert best is not None
            found.append(best)
    found.sort(key=lambda t: t.cycles)
    best, others = found[0], found[1:_CANDIDATES]
    if block is None and best.block * 2 <= min(chans, most_block):  # the model knows least about the caches
        others.insert(0, Tiling(best.rows, best.cols, best.block * 2, best.cycles))
    return (best, *others)
