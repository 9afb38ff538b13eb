"""Layerwise (uniform): every layer reaches the sparsity by itself."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.masks import pruned_count, warn_of_collapse
from prunebench.registry import scope
from prunebench.units import UnitSet


@scope("layerwise")
def layerwise(sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """⌊n·s + ½⌋ units of each set of n, but never its last one."""
    counts = [pruned_count(s.units, sparsity) for s in sets]
    warn_of_collapse([s.names[0] for s, c in zip(sets, counts, strict=True) if c >= s.units])
    return [min(c, s.units - 1) for s, c in zip(sets, counts, strict=True)]
