"""Weight granularity: every weight for itself (unstructured pruning)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


@granularity("weight")
def weight(scored: Scored) -> list[UnitSet]:
    """One set per layer, one unit per weight, in memory order; in rows, output by output, where the criterion asks."""
    from prunebench.units import forced

    ranked = {name: forced(score, scored.kept(name)) for name, score in scored.scores.items()}
    if scored.compare == "row":
        return [_by_row(name, score, scored.modules[name]) for name, score in ranked.items()]
    return [_layer(name, score) for name, score in ranked.items()]


def _layer(name: str, score: Tensor) -> UnitSet:
    from prunebench.units import UnitSet

    return UnitSet((name,), score.flatten(), 1, lambda keep: {name: keep.view(score.shape)})


def _by_row(name: str, score: Tensor, module: Any) -> UnitSet:
    from prunebench.rows import from_rows, to_rows
    from prunebench.units import UnitSet

    rows = to_rows(module, score)

    def expand(keep: Tensor) -> dict[str, Tensor]:
        return {name: from_rows(module, keep.view(rows.shape))}

    return UnitSet((name,), rows.flatten(), 1, expand, rows=len(rows))
