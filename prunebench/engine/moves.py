"""Tables of the moves between layouts: for every place in the new one, where its number lies in the old one."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunebench.engine.layout import LANES, Layout, lane_image
from prunebench.engine.planner import Step, Value
from prunebench.engine.schedule import Memory


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
    _, h, w = step.inputs[0].shape
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
    table = np.where(inside, at(image, np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)), -1)
    first = 0 if step.attrs.get("whole") else (m.pads[0] * m.row + m.pads[2]) * LANES
    return table.reshape(table.shape[0], -1), first


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
