"""Unit sets of a granularity of others, checked when they are made and each time that units become masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prunebench.errors import PluginError, PrunebenchError, reason
from prunebench.granularities import Scored
from prunebench.units import UnitSet


def checked(plugin: str, sets: Any, scored: Scored) -> Sequence[UnitSet]:
    """The same sets, which refuse masks that don't remove what their units' costs say; PluginError names the plugin."""
    where = f"granularity {plugin!r}"
    if not isinstance(sets, (list, tuple)) or not sets or not all(isinstance(s, UnitSet) for s in sets):
        raise PluginError(f"{where} returned {type(sets).__name__}; expected a list of UnitSets, one at least")
    shapes = {name: tuple(score.shape) for name, score in scored.scores.items()}
    found = []
    for unit_set in sets:
        name = _name(where, unit_set, shapes)
        scores = unit_set.scores
        if not isinstance(scores, Tensor) or scores.ndim != 1 or not len(scores) or not scores.is_floating_point():
            raise PluginError(f"{where} gave {name} scores that are no vector of floating-point numbers")
        if bool(scores.isnan().any() | scores.isposinf().any()):
            raise PluginError(f"{where} gave {name} NaN or infinite scores")
        if unit_set.costs.shape != scores.shape or not bool((unit_set.costs > 0).all()):
            raise PluginError(f"{where} gave {name} costs that are not one number above 0 for each unit")
        one = replace(unit_set, expand=partial(_expanded, where, unit_set.expand, unit_set.costs, shapes))
        for keep in (torch.ones, torch.zeros):
            one.expand(keep(one.units, dtype=torch.bool, device=scores.device))
        found.append(one)
    return found


def _name(where: str, unit_set: UnitSet, shapes: dict[str, tuple[int, ...]]) -> str:
    strange = [n for n in unit_set.names if n not in shapes]
    if strange or not unit_set.names:
        raise PluginError(f"{where} names {strange or 'no layer'} in a set; known: {', '.join(shapes)}")
    return unit_set.names[0]


def _expanded(
    where: str,
    expand: Callable[[Tensor], dict[str, Tensor]],
    costs: Tensor,
    shapes: dict[str, tuple[int, ...]],
    keep: Tensor,
) -> dict[str, Tensor]:
    try:
        masks = expand(keep)
    except PrunebenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} raised while it made masks: {reason(error)}") from error
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shapes.get(name):
            raise PluginError(f"{where} made a mask for {name} that is no bool tensor of shape {shapes.get(name)}")
    removed, said = sum(int((~mask).sum()) for mask in masks.values()), int(costs[~keep].sum())
    if removed != said:
        raise PluginError(f"{where} removes {removed} weights of {', '.join(masks)} where its units hold {said}")
    return masks
