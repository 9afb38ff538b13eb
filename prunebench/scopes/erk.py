"""ERK, Erdős–Rényi-kernel (Evci et al. 2020, "Rigging the Lottery", section 3; Mocanu et al. 2018 for the idea)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.registry import scope

if TYPE_CHECKING:
    from prunebench.units import UnitSet


@scope("erk")
def erk(sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """Density ε·(Σ dims / Π dims) of each layer, (out + in + kh + kw) / (out·in·kh·kw) for a convolution.

    So a layer keeps ε·Σ dims weights, one that would keep more than it has stays dense, and ε is such that the total
    of ⌊N·s + ½⌋ holds: exactly for single weights, else the nearest that whole units allow. Layers that are tied
    share one density, of the sums of both.
    """
    from prunebench.masks import pruned_count
    from prunebench.sharing import apportion, water_fill

    weights = [s.weights for s in sets]
    total = pruned_count(sum(weights), sparsity)
    dims = [_dims(s) * w for w, s in zip(weights, sets, strict=True)]
    kept = water_fill(dims, [s.least for s in sets], weights, sum(weights) - total)
    return apportion(sets, [w - k for w, k in zip(weights, kept, strict=True)], total)


def _dims(unit_set: UnitSet) -> float:
    # Per weight, because a set may hold only a part of its layers.
    shapes = unit_set.shapes
    return sum(map(sum, shapes)) / sum(map(math.prod, shapes))
