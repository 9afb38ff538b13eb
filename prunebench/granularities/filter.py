"""Filter granularity: all weights of one output channel go together (structured pruning, Li et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.errors import UsageError
from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


@granularity("filter")
def filter_(scored: Scored) -> list[UnitSet]:
    """One set per group of tied layers, one unit per output channel; its score is the layers' sum.

    The classifier's outputs, and whatever is tied to them, are never removed: the sparsity asked for is that of the
    weights that can go, and the whole model's is a little lower. Raises UsageError where no filter can be.
    """
    from prunebench.granularities.ties import tied_filters  # here: a grid is checked and collected without torch

    sets = []
    for names in tied_filters(scored.model, scored.modules):
        filters = {scored.scores[name].shape[_axis(scored, name)] for name in names}
        if len(filters) == 1 and filters != {1}:
            sets.append(_group(scored, names))
    if not sets:
        raise UsageError(f"{type(scored.model).__name__} has no filter that could be removed; use granularity='weight'")
    return sets


def _axis(scored: Scored, name: str) -> int:
    # A transposed convolution's weight is (in, out/groups, …): its filters lie along the second axis.
    return 1 if getattr(scored.modules[name], "transposed", False) else 0


def _group(scored: Scored, names: tuple[str, ...]) -> UnitSet:
    import torch

    from prunebench.units import UnitSet, forced, precise

    axes = {name: _axis(scored, name) for name in names}
    shapes = {name: scored.scores[name].shape for name in names}
    rows = {name: scored.scores[name].transpose(0, axes[name]).flatten(1) for name in names}
    total = torch.stack([scored.reduce(precise(r)) for r in rows.values()]).sum(0)
    kept = None
    for name in names:
        mask = scored.kept(name)
        if mask is not None:
            alive = mask.transpose(0, axes[name]).flatten(1).any(1)
            kept = alive if kept is None else kept | alive

    def expand(keep: Tensor) -> dict[str, Tensor]:
        masks = {}
        for name in names:
            view = [1] * len(shapes[name])
            view[axes[name]] = -1
            masks[name] = keep.view(view).expand(shapes[name]).contiguous()
        return masks

    return UnitSet(names, forced(total, kept), sum(r.shape[1] for r in rows.values()), expand)
