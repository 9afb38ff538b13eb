"""What competes for pruning: sets of units (weights, filters, …) with one score each.

A granularity makes unit sets from layer scores, a scope decides how many units each set loses, and selection
within a set is always the same: the lowest scores, exactly as many as asked, ties by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench.masks import lowest


@dataclass(frozen=True)
class UnitSet:
    """Units ranked together: scores (units,), weights removed per unit, and how units become masks.

    expand maps a bool (units,), True = kept, to {parameter name: mask}.
    """

    names: tuple[str, ...]
    scores: Tensor
    cost: int
    expand: Callable[[Tensor], dict[str, Tensor]]

    @property
    def units(self) -> int:
        return self.scores.numel()

    @property
    def weights(self) -> int:
        return self.units * self.cost


def protected(scores: Tensor) -> Tensor:
    """The scores with the best unit (the last of equals, as it would be pruned last) raised to infinity."""
    best = scores.numel() - 1 - int(scores.flip(0).argmax())
    raised = scores.clone()
    raised[best] = float("inf")
    return raised


def select(sets: Sequence[UnitSet], counts: Sequence[int]) -> dict[str, Tensor]:
    """The masks after each set loses its count of lowest units; at least one unit of a set stays.

    A layer may be in several sets, each with its own part of the weights.
    """
    masks: dict[str, Tensor] = {}
    for unit_set, count in zip(sets, counts, strict=True):
        chosen = unit_set.expand(~lowest(unit_set.scores, min(count, unit_set.units - 1)))
        masks.update({name: masks[name] & mask if name in masks else mask for name, mask in chosen.items()})
    return masks


def forced(scores: Tensor, keep: Tensor | None) -> Tensor:
    """float32 scores with everything outside an earlier mask below all others, so that masks only shrink."""
    scores = scores.detach().to(torch.float32)
    return scores if keep is None else scores.masked_fill(~keep, float("-inf"))
