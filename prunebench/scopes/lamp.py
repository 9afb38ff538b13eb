"""LAMP, layer-adaptive magnitude pruning (Lee et al. 2021, equation 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.registry import scope

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


def _check(power: float) -> None:
    if not 0 < power < float("inf"):
        raise ValueError("give a power above 0")


@scope("lamp", check=_check)
def lamp(sets: Sequence[UnitSet], sparsity: float, power: float = 2) -> list[int]:
    """The lowest units over all sets by x_u^power / Σ_{v≥u} x_v^power, v over the same set in ascending order.

    With a magnitude criterion x = |w| and this is the paper's score, w² over the sum of all w² that are no smaller.
    For other criteria x is the score itself (a filter's, where filters are pruned), shifted up by a layer's lowest
    where scores are negative, so that the order within a layer always is the criterion's. power=1 fits scores that
    are squares already. Every set's best scores 1; the total is exact, as under `global`.
    """
    from prunebench.sharing import together

    return together(sets, sparsity, [lamp_scores(s.scores, power) for s in sets])


def lamp_scores(scores: Tensor, power: float = 2) -> Tensor:
    """float64 (units,) of a set's scores (units,); units that are gone (-inf) stay so and count for nothing."""
    alive = ~scores.isneginf()
    x = scores[alive].double()
    if len(x):
        x = x - x.min().clamp(max=0)
    largest = x.max() if len(x) else x.sum()
    ascending, order = (x / largest if largest > 0 else x).pow(power).sort(stable=True)
    # From the top down; where all that is left is zero, 0 / 0 counts as 0.
    rest = ascending.flip(0).cumsum(0).flip(0)
    found = scores.double()
    ranked = x.clone()
    ranked[order] = (ascending / rest).nan_to_num(nan=0.0)
    found[alive] = ranked
    return found
