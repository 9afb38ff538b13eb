"""Criteria: scores for every prunable weight, higher = keep, and nothing else.

A criterion plugin is `f(layer, **params) -> scores` of the weight's shape; `@pb.criterion` declares what it needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.errors import PluginError, PrunebenchError, UsageError, reason
from prunebench.registry import Plugin, get
from prunebench.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.criteria.gathering import NEEDS, Layer
    from prunebench.guard import Guard

__all__ = ["NEEDS", "Layer", "compare", "missing", "observer", "reducer", "rounds", "score"]

_COMPARISONS = ("layer", "row")

_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda s: s.sum(-1),
    "mean": lambda s: s.mean(-1),
    "max": lambda s: s.amax(-1),
}


def __getattr__(name: str) -> Any:
    # Late, and so in every function here: gathering imports torch, and a criterion's parameters are checked without it.
    if name not in ("NEEDS", "Layer"):
        raise AttributeError(f"module 'prunebench.criteria' has no attribute {name!r}")
    from prunebench.criteria import gathering

    return getattr(gathering, name)


def _declared(text: str) -> tuple[Plugin, Spec]:
    from prunebench.criteria import gathering

    plugin, spec = get("criteria", text)
    for need in plugin.declared["needs"]:
        try:
            gathering.check_need(need)
        except UsageError as error:  # the plugin's mistake, not the user's
            raise PluginError(f"criterion {plugin.name!r} asks for what can't be gathered: {error}") from error
    if plugin.declared.get("compare", "layer") not in _COMPARISONS:
        raise PluginError(
            f"criterion {plugin.name!r}: compare={plugin.declared['compare']!r} is unknown; "
            f"known: {', '.join(_COMPARISONS)}"
        )
    return plugin, spec


def missing(text: str, model: nn.Module, data: Any) -> str | None:
    """What the criterion wants `data` for where it isn't there, else None."""
    from prunebench.criteria import gathering

    return gathering.missing(_declared(text)[0].declared["needs"], model, data)


def observer(text: str, modules: Mapping[str, Any]) -> Any:
    """What must watch a training for the criterion, with observe() and renew(), or None."""
    from prunebench.criteria import gathering

    return gathering.observer(_declared(text)[0].declared["needs"], modules)


def compare(text: str) -> str:
    """What the criterion's scores are ranked within: "layer" (by whatever scope), or "row", each output's weights."""
    return str(_declared(text)[0].declared.get("compare", "layer"))


def rounds(text: str) -> int:
    """How often pb.prune rescores on the way to the target."""
    return int(_declared(text)[0].declared.get("rounds", 1))


def reducer(text: str) -> Callable[[Tensor], Tensor]:
    """(filters, weights) scores -> (filters,), as the criterion declares it."""
    plugin, spec = _declared(text)
    reduce = plugin.declared.get("reduce", "sum")
    if isinstance(reduce, str):
        if reduce not in _REDUCTIONS:
            raise PluginError(
                f"criterion {plugin.name!r}: reduce={reduce!r} is unknown; known: {', '.join(_REDUCTIONS)}"
            )
        return _REDUCTIONS[reduce]
    accepted = inspect.signature(reduce).parameters
    defaults = {
        k: p.default for k, p in inspect.signature(plugin.function).parameters.items() if p.default is not p.empty
    }
    given = {**defaults, **dict(spec.params)}
    bound = set(reduce.keywords) if isinstance(reduce, partial) else set()
    function = partial(reduce, **{k: v for k, v in given.items() if k in accepted and k not in bound})
    return function if plugin.builtin else partial(_reduced, plugin.name, function)


def _reduced(plugin: str, function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    """What a plugin's own `reduce` makes of (filters, weights) scores, checked; it gets a copy of its own."""
    import torch

    where = f"criterion {plugin!r}: its reduce"
    try:
        result = function(scores.clone())
    except PrunebenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} raised on {tuple(scores.shape)} scores: {reason(error)}") from error
    shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    if shape != tuple(scores.shape[:1]):
        raise PluginError(
            f"{where} returned {shape} for {tuple(scores.shape)} scores; expected {tuple(scores.shape[:1])}"
        )
    if result.is_complex() or not bool(torch.isfinite(result).all()):
        raise PluginError(f"{where} returned NaN or infinite scores")
    return result


def score(
    text: str,
    model: nn.Module,
    modules: Mapping[str, Any],
    *,
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    watched: Any = None,
    gathered: dict[str, Layer] | None = None,
    batch_norm: str = "running",
) -> dict[str, Tensor]:
    """Scores by parameter name, of their weight's shape and in float32 (float64 for such a weight); changes nothing.

    watched: the criterion's `observer`, where a training had one. gathered: filled with the layers as the criterion
    saw them, for who needs them again. batch_norm: see `prune`.
    Raises UsageError where the criterion needs data and none came, PluginError naming plugin and layer where it
    raises, returns a wrong shape or NaN, or changes a weight; what a criterion of others changes in the model (other
    weights, gradients, buffers, hooks, modes) is refused too and put back.
    """
    from prunebench.criteria import gathering
    from prunebench.guard import Guard

    plugin, spec = _declared(text)
    function = plugin.bind(spec)
    scores = {}
    guard = None if plugin.builtin else Guard(model)
    try:
        for layer in gathering.gather(
            model, modules, plugin.declared["needs"], data, loss, plugin.name, watched, batch_norm
        ):
            if gathered is not None:
                gathered[layer.name] = layer
            scores[layer.name] = _scored(plugin, function, layer, modules[layer.name], guard)
        changed = guard.found(values=True) if guard is not None else None
        if changed is not None:
            raise PluginError(f"criterion {plugin.name!r} changed {changed}; a criterion only scores")
    except BaseException:
        if guard is not None:
            guard.restore()
        raise
    return scores


def _scored(plugin: Plugin, function: Callable[..., Any], layer: Layer, module: Any, guard: Guard | None) -> Tensor:
    """One layer's scores, checked, in the type in which they are ranked; the weight is put back where it changed."""
    import torch

    name, before = layer.name, layer.weight.clone()
    where = f"criterion {plugin.name!r}"
    if guard is not None:
        guard.mark()
    try:
        result = function(layer)
    except PrunebenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} raised on {name}: {reason(error)}") from error
    finally:
        weight = getattr(module, "weight", None)
        changed = not isinstance(weight, torch.Tensor) or not torch.equal(weight.detach(), before)
        if changed and isinstance(weight, torch.Tensor) and weight.shape == before.shape:
            with torch.no_grad():
                weight.copy_(before)
    scores = _checked(where, name, result, before)
    if changed:
        raise PluginError(f"{where} changed the weight of {name}; a criterion only scores")
    other = guard.found() if guard is not None else None
    if other is not None:
        raise PluginError(f"{where} changed {other} while it scored {name}; a criterion only scores")
    # Never the weight's own memory, which whoever ranks the scores could then change.
    shared = scores.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
    return scores.clone() if shared else scores


def _checked(where: str, layer: str, result: Any, weight: Tensor) -> Tensor:
    """The scores as float32, float64 where the weight is."""
    import torch

    from prunebench.masks import all_finite

    if not isinstance(result, torch.Tensor):
        raise PluginError(f"{where} returned {type(result).__name__} for {layer}; expected a tensor")
    if result.shape != weight.shape:
        raise PluginError(
            f"{where} returned shape {tuple(result.shape)} for {layer}; "
            f"expected the weight's shape {tuple(weight.shape)}"
        )
    if result.layout != torch.strided or result.device != weight.device or result.is_quantized:
        raise PluginError(
            f"{where} returned a tensor on {result.device} ({result.layout}) for {layer}; "
            f"expected a plain one on {weight.device}, as the weight is"
        )
    if result.is_complex() or not all_finite(result):
        raise PluginError(f"{where} returned NaN or infinite scores for {layer}")
    scores = result.detach().to(torch.promote_types(weight.dtype, torch.float32))
    if not all_finite(scores):
        raise PluginError(f"{where} returned scores beyond what {scores.dtype} holds for {layer}; scale them down")
    return scores
