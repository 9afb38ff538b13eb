"""Gradient magnitude: |∂L/∂w|, the plainest first-order score, as a baseline for SNIP and Taylor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("gradient", needs=("gradients",))
def gradient(layer: Layer) -> Tensor:
    """|g|, g the mean gradient over the data."""
    return layer.grad.abs()
