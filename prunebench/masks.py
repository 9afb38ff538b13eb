"""Masks over a model's prunable weights: which there are, exact selection, application, collapse.

A mask is a bool tensor of its weight's shape, True = kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.errors import UsageError

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)


class LayerCollapseWarning(UserWarning):
    """A layer was left with so little that no signal may pass; the message names the layers."""


class NotPrunedWarning(UserWarning):
    """Layers that a granularity can't prune stay dense; the message names them."""


def prunable_modules(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, Any]:
    """{parameter name: its conv or linear module}, in the model's order, shared weights once.

    exclude: shell patterns on module or parameter names, for example "*.fc". Raises UsageError where nothing is
    left, a pattern fits nothing, or a layer carries torch.nn.utils.prune's reparametrisation.
    """
    if isinstance(exclude, str):
        exclude = [exclude]
    found: dict[str, Any] = {}
    seen: set[int] = set()
    used: set[str] = set()
    excluded: set[int] = set()
    for path, module in model.named_modules():
        if not isinstance(module, PRUNABLE):
            continue
        name = f"{path}.weight" if path else "weight"
        if "weight" not in module._parameters:
            raise UsageError(
                f"layer {path!r} has no plain weight (pruned by torch.nn.utils.prune, or parametrised?); "
                "call torch.nn.utils.prune.remove(layer, 'weight') first"
            )
        matching = [p for p in exclude if fnmatchcase(path, p) or fnmatchcase(name, p)]
        used.update(matching)
        if matching:
            excluded.add(id(module.weight))
        if id(module.weight) not in seen:
            seen.add(id(module.weight))
            found[name] = module
    # A shared weight is excluded under whichever of its names was meant.
    found = {name: module for name, module in found.items() if id(module.weight) not in excluded}
    for pattern in exclude:
        if pattern not in used:
            raise UsageError(f"exclude={pattern!r} fits no conv or linear layer; known: {', '.join(found) or 'none'}")
    if not found:
        raise UsageError(f"{type(model).__name__} has nothing to prune: no conv or linear weight is left")
    return found


def weight_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """{parameter name: every module's and parameter's name that means this weight}, in the model's order."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, PRUNABLE) and "weight" in module._parameters:
            found.setdefault(id(module.weight), []).extend((f"{path}.weight" if path else "weight", path))
    return {names[0]: tuple(names) for names in found.values()}


def check_weights(modules: Mapping[str, Any]) -> None:
    """UsageError naming the first layer whose weight is on meta, not floating-point, or holds NaN or infinity."""
    for name, module in modules.items():
        weight = module.weight
        if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
            raise UsageError(f"{name} is not a floating-point tensor in memory; load the model's weights first")
        if not torch.isfinite(weight).all():
            raise UsageError(f"{name} holds NaN or infinite values; a diverged model can't be pruned, train it again")


def pruned_count(total: int, sparsity: float) -> int:
    """⌊N·s + ½⌋: how many of N are pruned at sparsity s."""
    return math.floor(total * sparsity + 0.5)


def lowest(scores: Tensor, count: int) -> Tensor:
    """Bool (n,): True for exactly `count` of the lowest scores, ties by position, the earlier first."""
    if count <= 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if count >= scores.numel():
        return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    # kthvalue is a linear-time selection, where a stable sort of 25 million scores takes seconds.
    threshold = scores.kthvalue(count).values
    below = scores < threshold
    missing = count - int(below.sum())
    ties = (scores == threshold).nonzero().flatten()[:missing]
    below[ties] = True
    return below


@torch.no_grad()
def apply(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights outside the masks to exactly +0, in place."""
    for name, mask in masks.items():
        # Not a product: NaN * 0 is NaN, and -1 * 0 is a negative zero.
        model.get_parameter(name).masked_fill_(~mask, 0.0)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks that a model's zeros imply: {parameter name: weight != 0}."""
    return {name: module.weight.detach() != 0 for name, module in prunable_modules(model).items()}


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """Fraction of weights outside the masks."""
    total = sum(m.numel() for m in masks.values())
    return 1.0 - sum(int(m.sum()) for m in masks.values()) / total if total else 0.0


def warn_of_collapse(names: Sequence[str]) -> None:
    """LayerCollapseWarning for layers that were about to lose everything."""
    if names:
        warnings.warn(
            f"layer collapse: {', '.join(names)} would have lost every weight; the best one was kept. "
            "Lower the sparsity, or use scope='layerwise'",
            LayerCollapseWarning,
            stacklevel=3,
        )
