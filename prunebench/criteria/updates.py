"""Weight updates: what a criterion's `update` makes of the kept weights once the masks are chosen, checked.

An update plugin is `u(layer, keep, **params) -> weight`: keep is the layer's mask, the parameters are the criterion's
own that it accepts, and the weight is zero wherever keep is False. It is declared beside the criterion, which scores
and changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.errors import PluginError, PrunebenchError, reason
from prunebench.registry import defaults, get

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.criteria import Layer


def moves(text: str) -> bool:
    """True where the criterion moves kept weights: it declares an update, and its parameter `update` isn't false."""
    return _update(text) is not None


def moved(text: str, model: nn.Module, layers: Mapping[str, Layer], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{parameter name: new weight} of the layers that lose something; nothing is written to the model.

    Raises PluginError naming plugin and layer where the update raises, changes a weight in place, or returns anything
    but finite values of the weight's shape that are zero outside the mask.
    """
    from prunebench.guard import Guard

    function = _update(text)
    if function is None:
        return {}
    plugin = get("criteria", text)[0]
    guard = None if plugin.builtin else Guard(model)
    try:
        found = {
            name: _moved(plugin.name, function, layer, masks[name])
            for name, layer in layers.items()
            if not bool(masks[name].all())
        }
        changed = guard.found(values=True) if guard is not None else None
        if changed is not None:
            raise PluginError(f"criterion {plugin.name!r}: its update changed {changed}; return a new weight")
    except BaseException:
        if guard is not None:
            guard.restore()
        raise
    return found


def _moved(plugin: str, function: Callable[..., Any], layer: Layer, keep: Tensor) -> Tensor:
    import torch

    name, before = layer.name, layer.weight.clone()
    try:
        result = function(layer, keep.clone())
    except PrunebenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"criterion {plugin!r}: its update raised on {name}: {reason(error)}") from error
    finally:
        changed = not torch.equal(layer.weight, before)
        if changed:
            layer.weight.copy_(before)
    if changed:
        raise PluginError(f"criterion {plugin!r}: its update changed the weight of {name}; return a new one")
    return _checked(plugin, name, result, keep, before.dtype)


def _update(text: str) -> Callable[..., Any] | None:
    plugin, spec = get("criteria", text)
    function = plugin.declared.get("update")
    if function is None:
        return None
    given = {**defaults(plugin), **dict(spec.params)}
    if not given.get("update", True):
        return None
    accepted = inspect.signature(function).parameters
    return partial(function, **{k: v for k, v in given.items() if k in accepted})


def _checked(plugin: str, layer: str, result: Any, keep: Tensor, dtype: Any) -> Tensor:
    import torch

    from prunebench.masks import all_finite

    where = f"criterion {plugin!r}: its update returned"
    if not isinstance(result, torch.Tensor):
        raise PluginError(f"{where} {type(result).__name__} for {layer}; expected a tensor")
    if result.shape != keep.shape:
        raise PluginError(
            f"{where} shape {tuple(result.shape)} for {layer}; expected the weight's shape {tuple(keep.shape)}"
        )
    if result.is_complex() or not all_finite(result.to(dtype)):
        raise PluginError(f"{where} NaN or infinite weights for {layer}")
    if result[~keep].any():
        raise PluginError(f"{where} weights other than zero where {layer} was pruned")
    return result.detach().to(dtype)
