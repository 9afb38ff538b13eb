"""Global: all layers' units are ranked together, so that layers end at different sparsities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunebench.masks import lowest, pruned_count, warn_of_collapse
from prunebench.registry import scope
from prunebench.units import UnitSet, protected


@scope("global")
def global_(sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """The lowest units over all sets until ⌊N·s + ½⌋ weights are gone; each set keeps its best unit.

    Where units weigh differently (filters), the total is the nearest that whole units allow.
    """
    wanted = pruned_count(sum(s.weights for s in sets), sparsity)
    costs = torch.tensor([s.cost for s in sets])
    counts = _counts([s.scores for s in sets], costs, wanted)
    collapsed = [s.names[0] for s, count in zip(sets, counts, strict=True) if count == s.units]
    if not collapsed:
        return counts
    warn_of_collapse(collapsed)
    # With every set's best out of reach, the next in order takes its place and the total is unchanged.
    counts = _counts([protected(s.scores) for s in sets], costs, wanted)
    return [min(count, s.units - 1) for s, count in zip(sets, counts, strict=True)]


def _counts(scores: list[Tensor], costs: Tensor, wanted: int) -> list[int]:
    sizes = [len(s) for s in scores]
    pool = torch.cat(scores).cpu()
    if len(costs.unique()) == 1:
        gone = lowest(pool, min(round(wanted / int(costs[0])), len(pool)))
    else:
        order = pool.sort(stable=True).indices
        removed = costs.repeat_interleave(torch.tensor(sizes))[order].cumsum(0)
        gone = torch.zeros(len(pool), dtype=torch.bool)
        gone[order[: _nearest(removed, wanted)]] = True
    return [int(part.sum()) for part in gone.split(sizes)]


def _nearest(removed: Tensor, wanted: int) -> int:
    # removed[k] weights are gone after k + 1 units: the number of units whose total is nearest to the wanted one.
    totals = torch.cat([torch.zeros(1, dtype=removed.dtype), removed])
    return int((totals - wanted).abs().argmin())
