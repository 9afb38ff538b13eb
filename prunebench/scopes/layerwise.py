"""Layerwise (uniform): every layer reaches the sparsity by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.registry import scope

if TYPE_CHECKING:
    from prunebench.units import UnitSet


@scope("layerwise")
def layerwise(sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """⌊n·s + ½⌋ units of each set of n, but never its last one; the nearest number where units weigh differently."""
    from prunebench.sharing import alone

    return alone(sets, [sparsity] * len(sets))
