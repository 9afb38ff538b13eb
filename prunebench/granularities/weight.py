"""Weight granularity: every weight for itself (unstructured pruning)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


@granularity("weight")
def weight(scored: Scored) -> list[UnitSet]:
    """One set per layer, one unit per weight, in memory order."""
    from prunebench.units import forced

    return [_layer(name, forced(score, scored.kept(name))) for name, score in scored.scores.items()]


def _layer(name: str, score: Tensor) -> UnitSet:
    from prunebench.units import UnitSet

    return UnitSet((name,), score.flatten(), 1, lambda keep: {name: keep.view(score.shape)})
