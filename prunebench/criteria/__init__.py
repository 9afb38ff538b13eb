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
    import torch
    from torch import Tensor, nn

    from prunebench.criteria.gathering import NEEDS, Layer

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
    return partial(reduce, **{k: v for k, v in given.items() if k in accepted and k not in bound})


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
) -> dict[str, torch.Tensor]:
    """Scores by parameter name, each of its weight's shape; the model is left as it was.

    watched: the criterion's `observer`, where a training had one. gathered: filled with the layers as the criterion
    saw them, for who needs them again. batch_norm: see `prune`.
    Raises UsageError where the criterion needs data and none came, PluginError naming plugin and layer where it
    raises, returns a wrong shape or NaN, or changes a weight.
    """
    import torch

    from prunebench.criteria import gathering

    plugin, spec = _declared(text)
    function = plugin.bind(spec)
    scores = {}
    needs = plugin.declared["needs"]
    for layer in gathering.gather(model, modules, needs, data, loss, plugin.name, watched, batch_norm):
        name = layer.name
        if gathered is not None:
            gathered[name] = layer
        before = layer.weight.clone()
        try:
            result = function(layer)
        except PrunebenchError:
            raise
        except Exception as error:
            raise PluginError(f"criterion {plugin.name!r} raised on {name}: {reason(error)}") from error
        finally:
            changed = not torch.equal(modules[name].weight.detach(), before)
            if changed:
                with torch.no_grad():
                    modules[name].weight.copy_(before)
        _check(plugin.name, name, result, before)
        if changed:
            raise PluginError(f"criterion {plugin.name!r} changed the weight of {name}; a criterion only scores")
        scores[name] = result.detach()
    return scores


def _check(plugin: str, layer: str, result: Any, weight: Tensor) -> None:
    import torch

    from prunebench.masks import all_finite

    if not isinstance(result, torch.Tensor):
        raise PluginError(f"criterion {plugin!r} returned {type(result).__name__} for {layer}; expected a tensor")
    if result.shape != weight.shape:
        raise PluginError(
            f"criterion {plugin!r} returned shape {tuple(result.shape)} for {layer}; "
            f"expected the weight's shape {tuple(weight.shape)}"
        )
    if result.is_complex() or not all_finite(result):
        raise PluginError(f"criterion {plugin!r} returned NaN or infinite scores for {layer}")
