"""Tables of the moves between layouts: for every place in the new one, where its number lies in the old one."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunebench.engine.layout import LANES, Layout, lane_image
from prunebench.engine.schedule import Memory
from prunebench.engine.steps import Step, Value


def source(v: Value, m: Memory | None) -> tuple[Any, int]:
    """(offset of image n, row y, column x as a function of arrays; floats from channel to channel)."""
    c, h, w = v.shape
    if m is None or v.layout is None:
        return (lambda n, y, x: n * (c * h * w) + y * w + x), h * w
    lay = v.layout
    if lay.vector:
        return (lambda n, y, x: n * m.group), 1
    many = lay.images * lay.stack

    def at(n: Any, y: Any, x: Any) -> Any:
        inside = n % many
        lane = inside % lay.images * lay.per + y // lay.rh * lay.gx + x // lay.rw
        row, col = y % lay.rh + m.pads[0], x % lay.rw + inside // lay.images + m.pads[2]
        return n // many * m.group + (row * m.row + col) * LANES + lane

    return at, m.cols * LANES


def flat_table(at: Any, layout: Layout, h: int, w: int) -> np.ndarray:
    """Rows of (pixel, stack, lane): the channel of a pixel is its own channel in the flat value."""
    y, x, s, lane = np.meshgrid(np.arange(h), np.arange(w), np.arange(layout.stack), np.arange(LANES), indexing="ij")
    return np.where(lane < layout.images, at(s * layout.images + np.minimum(lane, layout.images - 1), y, x), -1)


def map_table(at: Any, step: Step, layout: Layout, m: Memory) -> tuple[np.ndarray, int]:
    """(rows, columns * lanes) sources of a map, and where the first goes; a whole one has its halo in it."""
    _, h, w = step.out.shape
    sy, sx = step.attrs.get("stride", (1, 1))  # of a move that leaves pixels out
    top, bottom, left, right = m.pads if step.attrs.get("whole") else (0, 0, 0, 0)
    modes = step.attrs.get("modes", ("zeros", "zeros"))
    lane, part = np.arange(LANES), np.arange(LANES) % layout.per
    y = np.arange(-top, layout.rh + bottom)[:, None, None] + (part // layout.gx * layout.rh)[None, None, :]
    cols = np.arange(-left, layout.rw * layout.stack + right)[None, :, None]
    stack = 0 if layout.stack == 1 else cols
    x = (cols if layout.stack == 1 else 0 * cols) + (part % layout.gx * layout.rw)[None, None, :]
    y, x = np.broadcast_arrays(_padded(y, h, modes[0]), _padded(x, w, modes[1]))
    used = (lane < layout.images * layout.per)[None, None, :]
    inside = used & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    image = lane_image(layout)[None, None, :] + stack * layout.images
    table = np.where(inside, at(image, np.clip(y, 0, h - 1) * sy, np.clip(x, 0, w - 1) * sx), -1)
    first = 0 if step.attrs.get("whole") else (m.pads[0] * m.row + m.pads[2]) * LANES
    return table.reshape(table.shape[0], -1), first


def fast_table(table: np.ndarray, dy: int, inside: bool) -> tuple[np.ndarray, int, int]:
    """The cheapest form of the table of a move to lanes: (numbers, blocks, pairs), see native/program.h.

    table: (rows, columns * 16); dy: floats from row to row of the new layout; inside: the source lies in the arena, so
    that whole vectors of it may be read. Costs are cycles measured on a Zen 4.
    """
    places = np.arange(table.shape[0])[:, None] * dy + np.arange(table.shape[1] // LANES)[None, :] * LANES
    vectors, places = table.reshape(-1, LANES), places.reshape(-1)
    best, cost = (table.reshape(-1), 0, 0), 30.0 * len(vectors)
    found = _blocks(vectors, places)
    if 50.0 * len(found) < cost:
        best, cost = (found.reshape(-1), len(found), 0), 50.0 * len(found)
    found = _pairs(vectors, places) if inside else found[:0]
    if len(found) and 5.0 * len(found) < cost:
        best = (found.reshape(-1), 0, len(found))
    return best


def _blocks(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Up to 16 vectors whose sources lie side by side, as (count, 16 sources, 16 places) rows."""
    base = vectors.max(axis=1)
    # vectors of one block differ by a constant: sort by what is left when it is taken away, then by the constant
    rest = np.where(vectors < 0, -(2**30), vectors - base[:, None])
    order = np.lexsort((base, *rest.T))
    rest, base, places, vectors = rest[order], base[order], places[order], vectors[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (rest[1:] != rest[:-1]).any(axis=1) | (base[1:] != base[:-1] + 1) | (base[1:] < 0)
    first = np.flatnonzero(starts)
    sizes = np.diff(np.append(first, len(order)))
    first = np.concatenate([np.arange(f, f + n, LANES) for f, n in zip(first, sizes, strict=True)])
    ends = np.append(first[1:], len(order))
    out = np.zeros((len(first), 1 + 2 * LANES), np.int32)
    out[:, 0] = ends - first
    out[:, 1 : 1 + LANES] = vectors[first]
    for i in range(LANES):
        out[:, 1 + LANES + i] = places[np.minimum(first + i, ends - 1)]
    return out


def _pairs(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A vector and one of the vectors it comes from: (place, source, mask of lanes, first, 16 lanes) rows."""
    use = vectors >= 0
    window = np.where(use, vectors // LANES, -1)
    rows = []
    left = use.copy()
    first = np.ones(len(vectors), np.int32)
    everywhere = np.arange(len(vectors))
    while len(everywhere):
        source = np.where(left, window, -1)[everywhere].max(axis=1)
        mask = left[everywhere] & (window[everywhere] == source[:, None])
        row = np.zeros((len(everywhere), 4 + LANES), np.int64)
        row[:, 0] = places[everywhere]
        row[:, 1] = np.maximum(source, 0) * LANES
        row[:, 2] = (mask * (1 << np.arange(LANES))).sum(axis=1)
        row[:, 3] = first[everywhere]
        row[:, 4:] = np.where(mask, vectors[everywhere] % LANES, 0)
        rows.append(np.column_stack([everywhere, row]))
        left[everywhere] &= ~mask
        first[everywhere] = 0
        everywhere = everywhere[left[everywhere].any(axis=1)]
    out = np.concatenate(rows)
    out = out[np.argsort(out[:, 0], kind="stable"), 1:]
    return np.ascontiguousarray(out, np.int32)


def _padded(at: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Coordinates outside [0, size) as the padding mode reads them; zeros: left outside."""
    if mode == "circular":
        return at % size
    if mode == "replicate":
        return np.clip(at, 0, size - 1)
    if mode == "reflect":
        at = np.abs(at)
        return np.where(at >= size, 2 * (size - 1) - at, at)
    return at
