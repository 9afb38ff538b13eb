"""How much every layer loses, given from outside: another model's masks, or what another pruning recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.units import UnitSet

Given = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Proportions:
    """Weights to remove per layer: one final count each, or one per pruning in turn.

    given: {parameter name: bool mask, True = kept, or the number of weights removed}, or a sequence of such mappings,
    the k-th for the k-th pruning. weights: {parameter name: weight} of the model. Raises UsageError where they don't
    fit each other.
    """

    def __init__(self, given: Given, weights: Mapping[str, Tensor]) -> None:
        self.exact = not isinstance(given, Mapping)
        rounds = [given] if isinstance(given, Mapping) else list(given)
        if not rounds:
            raise UsageError("proportions are empty; give masks, or a count per layer")
        self._rounds = [{name: _removed(name, one, weights) for name in weights} for one in rounds]
        for one in rounds:
            for name in set(one) - set(weights):
                raise UsageError(f"proportions name {name!r}, which isn't pruned here; known: {', '.join(weights)}")
        self.sparsity = sum(self._rounds[-1].values()) / sum(w.numel() for w in weights.values())

    def counts(self, sets: Sequence[UnitSet], share: float, pruning: int) -> list[int]:
        """Units to remove per set at a share of the counts: the final ones, or those given for this pruning.

        As near as whole units come, never fewer than are gone. UsageError where a layer can't be pruned.
        """
        wanted = self._rounds[min(pruning, len(self._rounds) - 1)] if self.exact else self._rounds[0]
        reached = {name for s in sets for name in s.names}
        for name, count in wanted.items():
            if count and name not in reached:
                raise UsageError(f"proportions: {name} can't be pruned at this granularity; its count must be 0")
        found = []
        for s in sets:
            total = math.floor(sum(wanted[name] for name in s.names) * share + 0.5)
            if isinstance(s.cost, int):
                nearest = math.floor(total / s.cost + 0.5)
            else:
                nearest = int((s.ladder - total).abs().argmin())
            found.append(min(max(nearest, s.gone), s.most))
        return found


def removed(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """{parameter name: weights outside its mask}: what a twin's pruning is told."""
    return {name: int(mask.numel() - mask.count_nonzero()) for name, mask in masks.items()}


def _removed(name: str, given: Mapping[str, Any], weights: Mapping[str, Tensor]) -> int:
    if name not in given:
        raise UsageError(f"proportions lack {name}; give every layer its mask or its count, 0 for none")
    value, weight = given[name], weights[name]
    if isinstance(value, Tensor):
        if value.shape != weight.shape or value.dtype != torch.bool:
            raise UsageError(
                f"proportions: {name} has a {value.dtype} mask of shape {tuple(value.shape)}; "
                f"give a bool one of {tuple(weight.shape)}"
            )
        return int(value.numel() - value.count_nonzero())
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < weight.numel():
        raise UsageError(f"proportions: {name} can't lose {value!r} of its {weight.numel()} weights; give fewer")
    return value


def by_density(final: float, part: float) -> float:
    """The sparsity after a part of the way in equal factors of the density (Tanaka et al. 2020)."""
    return 1.0 - (1.0 - final) ** part


def on_the_way(part: float, target: Callable[[float], float], final: float) -> float:
    """The same, never beyond the schedule's own target."""
    return min(by_density(final, part), target(final))
