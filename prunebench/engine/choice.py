"""What is chosen for a plan: how many images may share a lane vector, every layer's register tile and block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prunebench.engine.layout import SIZES
from prunebench.engine.tiles import Tiling


@dataclass
class Choice:
    """images: allowed numbers of images in lanes; tiles: (rows, columns, block) by layer; variant: the model's n-th.

    threads: 0 for the model's choice, which takes all or one.
    """

    images: tuple[int, ...] = SIZES
    tiles: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    variant: int = 0
    threads: int = 0

    def of(self, layer: str, found: tuple[Tiling, ...], rh: int, rw: int, most: int, widest: tuple[int, ...]) -> Tiling:
        """The layer's tiling: the one named here if it fits the region and this machine's kernels, else the model's.

        most: channels of a block; widest: columns of a tile for each number of rows.
        """
        named = self.tiles.get(layer)
        if named is not None:
            rows, cols, block = named
            if rows <= min(rh, len(widest) - 1) and cols <= min(rw, widest[rows]) and block <= most:
                return Tiling(rows, cols, block, 0.0)
        return found[min(self.variant, len(found) - 1)]

    def as_dict(self) -> dict[str, Any]:
        """For keeping as JSON."""
        tiles = {k: list(v) for k, v in self.tiles.items()}
        return {"images": list(self.images), "tiles": tiles, "threads": self.threads}

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Choice:
        """The reverse of as_dict. ValueError: not what as_dict makes."""
        try:
            images = tuple(int(i) for i in value["images"])
            threads = int(value.get("threads", 0))
            tiles = {str(k): (int(v[0]), int(v[1]), int(v[2])) for k, v in value["tiles"].items()}
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not a choice of layouts and tiles: {error!r}") from None
        if not images or not set(images) <= set(SIZES) or any(min(t) < 1 for t in tiles.values()) or threads < 0:
            raise ValueError(f"images must be of {SIZES}, tiles and blocks at least 1, threads at least 0")
        return Choice(images, tiles, threads=threads)
