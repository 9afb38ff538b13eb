"""Masks over a model's prunable weights: which there are, exact selection, application, collapse.

A mask is a bool tensor of its weight's shape, True = kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from prunebench.attention import Projection, projection_names
from prunebench.errors import UsageError
from prunebench.reparametrised import remedy

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)
_SAMPLE = 1 << 15  # scores that are sorted to bound a threshold


class LayerCollapseWarning(UserWarning):
    """A layer was left with so little that no signal may pass; the message names the layers."""


class NotPrunedWarning(UserWarning):
    """Layers that a granularity can't prune stay dense; the message names them."""


def prunable_modules(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, Any]:
    """{parameter name: its conv or linear module}, in the model's order, shared weights once.

    The projections inside an nn.MultiheadAttention count too; a linear module stands for each of them.
    exclude: shell patterns on module or parameter names, for example "*.fc". Raises UsageError where nothing is
    left, a pattern fits nothing, or a layer computes its weight from others (a mask, a parametrization).
    """
    if isinstance(exclude, str):
        exclude = [exclude]
    found: dict[str, Any] = {}
    seen: set[int] = set()
    used: set[str] = set()
    excluded: set[int] = set()
    for path, owner, attribute in held_weights(model):
        name = f"{path}.{attribute}" if path else attribute
        matching = [p for p in exclude if fnmatchcase(path, p) or fnmatchcase(name, p)]
        used.update(matching)
        if attribute not in owner._parameters:
            if matching:
                continue
            raise UsageError(f"layer {path!r}: its {attribute} {remedy(owner, attribute)}")
        module: Any = Projection(owner, attribute) if isinstance(owner, nn.MultiheadAttention) else owner
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
        captured = isinstance(model, (torch.jit.ScriptModule, fx.GraphModule))
        hint = "; prune the model that it was captured from" if captured else ""
        raise UsageError(f"{type(model).__name__} has nothing to prune: no conv or linear weight is left{hint}")
    return found


def held_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(path, module, attribute) of every conv, linear and attention weight, shared ones as often as they appear."""
    for path, module in model.named_modules():
        if isinstance(module, PRUNABLE):
            yield path, module, "weight"
        elif isinstance(module, nn.MultiheadAttention):
            yield from ((path, module, name) for name in projection_names(module))


def meant(model: nn.Module, exclude: Sequence[str] = ()) -> list[tuple[str, nn.Module, str]]:
    """Of held_weights those that no pattern fits; what a pattern can't fit is left to `prunable_modules` to tell."""
    patterns = [exclude] if isinstance(exclude, str) else exclude
    return [
        (path, module, attribute)
        for path, module, attribute in held_weights(model)
        if not any(fnmatchcase(path, p) or fnmatchcase(f"{path}.{attribute}", p) for p in patterns)
    ]


def weight_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """{parameter name: every module's and parameter's name that means this weight}, in the model's order."""
    found: dict[int, list[str]] = {}
    for path, module, attribute in held_weights(model):
        if attribute in module._parameters:
            names = found.setdefault(id(module._parameters[attribute]), [])
            names.extend((f"{path}.{attribute}" if path else attribute, path))
    return {names[0]: tuple(names) for names in found.values()}


def check_weights(modules: Mapping[str, Any]) -> None:
    """UsageError naming the first layer whose weight is on meta, empty, not floating-point, NaN or infinite."""
    for name, module in modules.items():
        weight = module.weight
        if is_lazy(weight):
            raise UsageError(f"{name} has no shape yet: it is a lazy module's; call the model on a batch first")
        if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
            raise UsageError(f"{name} is not a floating-point tensor in memory; load the model's weights first")
        if weight.itemsize < 2:  # torch can't even sum such numbers
            raise UsageError(f"{name} is {weight.dtype}, which can't be computed with; call model.float() first")
        if weight.is_inference() and not torch.is_inference_mode_enabled():
            raise UsageError(f"{name} was made in inference mode and can't be changed; make the model outside of it")
        if not weight.numel():
            raise UsageError(f"{name} is empty, {tuple(weight.shape)}; leave its layer out, exclude=[{name!r}]")
        if not all_finite(weight):
            raise UsageError(f"{name} holds NaN or infinite values; a diverged model can't be pruned, train it again")


def all_finite(values: Tensor) -> bool:
    """True where no value is NaN or infinite."""
    # A sum is one pass, and finite only if all is; finite values may overflow it, so that it alone can't refuse.
    return bool(torch.isfinite(values.detach().sum())) or bool(torch.isfinite(values).all())


def pruned_count(total: int, sparsity: float) -> int:
    """⌊N·s + ½⌋: how many of N are pruned at sparsity s."""
    return math.floor(total * sparsity + 0.5)


def lowest(scores: Tensor, count: int) -> Tensor:
    """Bool (n,): True for exactly `count` of the lowest scores, ties by position, the earlier first."""
    if count <= 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if count >= scores.numel():
        return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    threshold = _kth(scores, count)
    below = scores < threshold
    missing = count - int(below.count_nonzero())
    ties = scores == threshold
    if int(ties.count_nonzero()) > missing:
        ties[ties.nonzero().flatten()[missing:]] = False
    return below.logical_or_(ties)


def _kth(scores: Tensor, count: int) -> Tensor:
    """The count-th lowest of (n,) scores, as `kthvalue` finds it: that alone, on 25 million scores, takes a second.

    Floyd & Rivest 1975, "Expected time bounds for selection": a sorted sample bounds it from both sides, and only the
    few per cent between the bounds are searched.
    """
    step = len(scores) // _SAMPLE
    if step < 2 or not scores.is_floating_point():
        return scores.kthvalue(count).values
    sample = scores[::step].sort().values
    place, margin = count * len(sample) // len(scores), 4 * math.isqrt(len(sample))
    low, high = (
        sample[i] if 0 <= i < len(sample) else sample.new_full((), math.copysign(math.inf, i))
        for i in (place - margin, place + margin)
    )
    above = scores > low
    rank = count - (len(scores) - int(above.count_nonzero()))
    if rank <= 0:
        if int((scores < low).count_nonzero()) < count:
            return low
    else:
        between = scores[above.logical_and_(scores < high)]
        if rank <= len(between):
            return between.kthvalue(rank).values
        if count <= int((scores <= high).count_nonzero()):
            return high
    return scores.kthvalue(count).values  # a sample in step with a pattern in the scores misjudges them


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
    return 1.0 - sum(int(m.count_nonzero()) for m in masks.values()) / total if total else 0.0


def warn_of_collapse(names: Sequence[str]) -> None:
    """LayerCollapseWarning for layers that were about to lose everything."""
    if names:
        warnings.warn(
            f"layer collapse: {', '.join(names)} would have lost every weight; the best one was kept. "
            "Lower the sparsity, or use scope='layerwise'",
            LayerCollapseWarning,
            stacklevel=3,
        )
