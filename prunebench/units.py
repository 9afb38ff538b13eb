"""What competes for pruning: sets of units (weights, filters, …) with one score each.

A granularity makes unit sets from layer scores, a scope decides how many units each set loses, and selection
within a set is always the same: the lowest scores, exactly as many as asked, ties by position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunebench.masks import lowest


@dataclass(frozen=True)
class UnitSet:
    """Units ranked together: scores (units,), weights removed per unit, and how units become masks.

    cost: one number, or int64 (units,) where they differ. expand maps a bool (units,), True = kept, to
    {parameter name: mask}. staying: weights of these layers that are in no unit, so are never removed. rows: the units
    are that many rows of equal length, and what the set loses is taken from all rows alike. found: {count: bool
    (units,), True for the `count` lowest} where a ranking over several sets has told it already.
    """

    names: tuple[str, ...]
    scores: Tensor
    cost: int | Tensor
    expand: Callable[[Tensor], dict[str, Tensor]]
    staying: int = 0
    rows: int = 1
    found: dict[int, Tensor] = field(init=False, default_factory=dict, compare=False, repr=False)

    @property
    def units(self) -> int:
        return self.scores.numel()

    @property
    def costs(self) -> Tensor:
        """Weights removed with each unit, int64 (units,)."""
        if isinstance(self.cost, int):
            return torch.full((self.units,), self.cost, dtype=torch.int64, device=self.scores.device)
        return self.cost

    @property
    def weights(self) -> int:
        """All weights of its layers, those in no unit included."""
        return self.staying + (self.units * self.cost if isinstance(self.cost, int) else int(self.cost.sum()))

    @property
    def gone(self) -> int:
        """How many units earlier masks have removed."""
        return int((self.scores == -math.inf).count_nonzero())

    @property
    def most(self) -> int:
        """How many units may go: the last one stays where nothing else of its layers does."""
        return self.units if self.staying else self.units - 1

    @property
    def least(self) -> int:
        """How many weights stay whatever the sparsity: those in no unit, else the best unit's."""
        if self.staying:
            return self.staying
        return self.cost if isinstance(self.cost, int) else int(self.cost[_best(self.scores)])

    @property
    def ladder(self) -> Tensor:
        """Weights gone with the k lowest units, k = 0…units: int64 (units + 1,)."""
        order = self.scores.sort(stable=True).indices
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.costs[order].cumsum(0).cpu()])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its layers' weights."""
        masks = self.expand(torch.ones(self.units, dtype=torch.bool, device=self.scores.device))
        return tuple(tuple(mask.shape) for mask in masks.values())


def protected(scores: Tensor) -> Tensor:
    """The scores with the best unit (the last of equals, as it would be pruned last) raised to infinity."""
    raised = scores.clone()
    raised[_best(scores)] = float("inf")
    return raised


def _best(scores: Tensor) -> int:
    return int((scores == scores.max()).nonzero()[-1])


def select(sets: Sequence[UnitSet], counts: Sequence[int]) -> dict[str, Tensor]:
    """The masks after each set loses its count of lowest units; something of each set stays.

    A layer may be in several sets, each with its own part of the weights.
    """
    masks: dict[str, Tensor] = {}
    for unit_set, count in zip(sets, counts, strict=True):
        count = min(count, unit_set.most)
        if unit_set.rows > 1:
            gone = lowest_by_row(unit_set, count)
        else:
            gone = unit_set.found[count] if count in unit_set.found else lowest(unit_set.scores, count)
        for name, mask in unit_set.expand(~gone).items():
            masks[name] = masks[name] & mask if name in masks else mask
    return masks


def lowest_by_row(unit_set: UnitSet, count: int) -> Tensor:
    """Bool (units,): True for `count` units, the lowest of every row, ties by position."""
    rows = unit_set.scores.view(unit_set.rows, -1)
    counts = shares(count, rows.shape[1], (rows == float("-inf")).sum(1))
    order = rows.argsort(dim=1, stable=True)
    first = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
    return torch.zeros_like(first).scatter_(1, order, first).flatten()


def shares(count: int, width: int, gone: Tensor) -> Tensor:
    """`count` spread over rows of `width` units as evenly as can be, what remains to the first rows: (rows,) ints.

    gone (rows,): how many each row has lost before and can't lose less than, so that masks only shrink.
    """
    low, high = 0, width  # the highest level to which every row can be brought within the count
    while low < high:
        middle = (low + high + 1) // 2
        if int(gone.clamp(min=middle).sum()) <= count:
            low = middle
        else:
            high = middle - 1
    counts = gone.clamp(min=low)
    room = ((counts == low) & (counts < width)).nonzero().flatten()
    counts[room[: max(0, count - int(counts.sum()))]] += 1
    return counts


def precise(scores: Tensor) -> Tensor:
    """The scores in float32, or as they are where that would make different ones equal."""
    scores = scores.detach()
    return scores if scores.dtype == torch.float64 else scores.to(torch.float32)


def forced(scores: Tensor, keep: Tensor | None) -> Tensor:
    """`precise` scores with everything outside an earlier mask below all others, so that masks only shrink."""
    scores = precise(scores)
    return scores if keep is None else scores.masked_fill(~keep, float("-inf"))
