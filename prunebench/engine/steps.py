"""What a plan is made of: values in the arena, and native operations on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prunebench.engine.ir import Op, Shape
from prunebench.engine.layout import Layout


@dataclass(eq=False)
class Value:
    """A tensor in the arena: shape of an image, layout, what its halos must hold."""

    shape: Shape
    layout: Layout | None  # None: an input or output of the segment
    port: int = -1  # number of the input or output
    output: bool = False
    flat: bool = False
    pads: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # top, bottom, left, right
    fill: float = 0.0  # outside the map
    positive: bool = False  # never below zero, so that a zero outside is as good as minus infinity for a maximum
    parent: Value | None = None  # a part of another value's channels
    first: int = 0  # first channel in the parent

    @property
    def root(self) -> Value:
        """The value that owns the memory."""
        return self.parent.root if self.parent else self

    @property
    def channel(self) -> int:
        """First channel in the root."""
        return self.first + self.parent.channel if self.parent else 0


@dataclass(eq=False)
class Step:
    """One native operation."""

    kind: str  # conv, dot, halo, move, window, sum, map
    op: Op | None
    inputs: list[Value]
    out: Value
    attrs: dict[str, Any] = field(default_factory=dict)
