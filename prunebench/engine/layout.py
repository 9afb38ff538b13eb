"""What the 16 lanes of a vector are: images, regions of a map, or some of both; and the tables that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LANES = 16  # native/engine.h
SIZES = (1, 2, 4, 8, 16)
# Share of the roof that a register tile of so many lane vectors reaches; measured, see docs/engine-notes.md
_REACHED = {1: 0.5, 2: 0.68, 3: 0.8, 4: 0.88, 5: 0.92, 6: 0.95}


@dataclass(frozen=True)
class Layout:
    """`images` images in lanes, each cut into gy x gx regions of rh x rw pixels, one region a lane.

    stack > 1: maps of one pixel only, so many groups of 16 images side by side where the columns would be.
    vector: one image without a map, plain consecutive floats.
    """

    images: int
    gy: int
    gx: int
    rh: int
    rw: int
    stack: int = 1
    vector: bool = False

    @property
    def per(self) -> int:
        """Lanes of an image."""
        return self.gy * self.gx

    def owns(self, h: int, w: int) -> bool:
        """Whether the regions cover a map of h x w."""
        return self.gy * self.rh >= h and self.gx * self.rw >= w

    def words(self) -> str:
        """For the summary."""
        if self.vector:
            return "vector"
        if self.stack > 1:
            return f"{self.images * self.stack} images"
        return f"{self.images} images x {self.gy} x {self.gx} regions"


def flat_layout(images: int) -> Layout:
    """For values without a map."""
    if images == 1:
        return Layout(1, 1, 1, 1, 1, vector=True)
    return Layout(min(images, LANES), 1, 1, 1, 1, max(1, images // LANES))


def cost(layout: Layout, h: int, w: int) -> float:
    """Estimated time per image and pixel relative to a perfect fit."""
    size = layout.rh * layout.rw
    reached = _REACHED.get(size, 1.0)
    # fewer images in flight: their maps stay nearer to the core
    return size / layout.images * LANES / (h * w) / reached * (1 + 0.01 * np.log2(layout.images))


@lru_cache(maxsize=4096)
def best_layout(chunk: int, h: int, w: int, allowed: tuple[int, ...] = SIZES) -> Layout:
    """The cheapest layout of a map of h x w for a chunk of images; among equals the squarest region."""
    found = []
    sizes = [n for n in SIZES if n <= chunk]
    for images in [n for n in sizes if n in allowed] or sizes[-1:]:
        room = LANES // images
        for gy in range(1, room + 1):
            layout = Layout(images, gy, room // gy, -(-h // gy), -(-w // (room // gy)))
            around = (layout.rh + 2) * (layout.rw + 2)
            found.append((round(cost(layout, h, w), 3), around / layout.images, layout.images, gy, layout))
    return min(found, key=lambda f: f[:4])[4]


def lane_image(layout: Layout) -> np.ndarray:
    """Image of each lane; lanes beyond the last region repeat the last image."""
    return np.minimum(np.arange(LANES) // layout.per, layout.images - 1)


def coordinates(layout: Layout, y: int, x: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column that each lane has at (y, x) of its region, and whether the lane is in use."""
    lane = np.arange(LANES)
    part = lane % layout.per
    return part // layout.gx * layout.rh + y, part % layout.gx * layout.rw + x, lane < layout.images * layout.per


class Masks:
    """Lane masks of a program, each kept once."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.index: dict[bytes, int] = {}

    def add(self, use: np.ndarray) -> int:
        """Number of the mask."""
        key = np.where(use, np.uint32(0xFFFFFFFF), np.uint32(0)).astype(np.uint32).tobytes()
        if key not in self.index:
            self.index[key] = len(self.rows)
            self.rows.append(key)
        return self.index[key]

    def array(self) -> np.ndarray:
        """All masks, one after the other."""
        return np.frombuffer(b"".join(self.rows), np.int32)


def halo_entries(
    layout: Layout, h: int, w: int, pads: tuple[int, int, int, int], row: int
) -> tuple[np.ndarray, np.ndarray]:
    """(entries, masks) of a halo: every vector that isn't wholly inside the map, from the neighbouring lanes.

    pads: rows above and below, columns left and right; row: lane vectors from one row to the next. An entry is its
    row, column, source in floats from the channel's first, and mask (native/program.h).
    """
    top, bottom, left, right = pads
    masks, entries = Masks(), []
    for y in range(-top, layout.rh + bottom):
        for x in range(-left, layout.rw + right):
            ys, xs, used = coordinates(layout, y, x)
            up, aside = y // layout.rh, x // layout.rw
            part = np.arange(LANES) % layout.per
            inside = (part // layout.gx + up >= 0) & (part // layout.gx + up < layout.gy)
            inside &= (part % layout.gx + aside >= 0) & (part % layout.gx + aside < layout.gx)
            use = used & inside & (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
            own = up == 0 and aside == 0
            if own and bool(use[: layout.images * layout.per].all()):
                continue
            shift = up * layout.gx + aside
            sy, sx = y - up * layout.rh + top, x - aside * layout.rw + left
            source = (sy * row + sx) * LANES + shift if use.any() else ((y + top) * row + x + left) * LANES
            entries.append((sy, (y + top, x + left, source, masks.add(use))))
    # by source row: threads share tiles by rows, and the one that wrote a row passes it on
    ordered = [entry for _, entry in sorted(entries, key=lambda e: e[0])]
    return np.array(ordered, np.int32).reshape(-1), masks.array()


def use_mask(layout: Layout, h: int, w: int) -> np.ndarray | None:
    """Lanes inside the map for every vector of a region, or None when all are."""
    use = np.stack([
        np.stack([(c[0] < h) & (c[1] < w) & c[2] for c in (coordinates(layout, y, x) for x in range(layout.rw))])
        for y in range(layout.rh)
    ])  # fmt: skip
    used = np.arange(LANES) < layout.images * layout.per
    if bool(use[:, :, used].all()):
        return None
    return np.where(use, np.uint32(0xFFFFFFFF), np.uint32(0)).astype(np.uint32).view(np.int32).reshape(-1)
