"""Weights that a module computes before it runs: masks of torch.nn.utils.prune, torch's parametrizations.

Both are folded into plain weights: in a private copy for whoever only runs the model, in place for whoever prunes it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Init = TypeVar("Init", bound=Callable[..., None])
_SLOTS = ("__dict__", "__weakref__")


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy with every reparametrisation (masks, parametrizations, weight and spectral norms) folded in."""
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():  # a computed weight is no leaf, which deepcopy refuses
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach().clone()
    twin = copy.deepcopy(model, memo)
    for module in list(twin.modules()):
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
            elif isinstance(hook, (WeightNorm, SpectralNorm)):
                hook.remove(module)
                del module._forward_pre_hooks[key]
        if parametrize.is_parametrized(module):
            # The copy shares the class that torch made for the original; taking the property off it would break both.
            own, kind = {k: v for k, v in vars(type(module)).items() if k not in _SLOTS}, type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, own)
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return twin


def remedy(module: nn.Module, name: str) -> str:
    """What to call so that a module's `name` becomes a plain parameter, or why it can't be one."""
    if parametrize.is_parametrized(module, name):
        return f"is parametrised; call torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r}) first"
    if isinstance(_mask_hook(module, name), prune.BasePruningMethod):
        return f"is masked by torch.nn.utils.prune; call torch.nn.utils.prune.remove(layer, {name!r}) first"
    for old, kind in (("weight_norm", WeightNorm), ("spectral_norm", SpectralNorm)):
        if any(isinstance(h, kind) for h in module._forward_pre_hooks.values()):
            return f"is computed by torch.nn.utils.{old}; call torch.nn.utils.remove_{old}(layer, {name!r}) first"
    return "is no parameter of its layer; make it one first"


def _mask_hook(module: nn.Module, name: str) -> Any:
    hooks = module._forward_pre_hooks.values()
    return next((h for h in hooks if isinstance(h, prune.BasePruningMethod) and h._tensor_name == name), None)


class _Masked:
    """One weight under torch's mask: `fold` makes it plain in place, `undo` puts everything back as it was."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.key = next(k for k, h in module._forward_pre_hooks.items() if h is _mask_hook(module, name))
        self.hook = module._forward_pre_hooks[self.key]
        self.original = module.get_parameter(f"{name}_orig")
        self.values, self.mask = self.original.data, module.get_buffer(f"{name}_mask")

    def fold(self) -> None:
        prune.remove(self.module, self.name)

    def undo(self) -> None:
        m, name = self.module, self.name
        del m._parameters[name]
        self.original.data = self.values
        m.register_parameter(f"{name}_orig", self.original)
        m.register_buffer(f"{name}_mask", self.mask)
        setattr(m, name, self.hook.apply_mask(m))  # type: ignore[attr-defined]
        m._forward_pre_hooks[self.key] = self.hook


@contextmanager
def folded(model: nn.Module, weights: Sequence[tuple[str, nn.Module, str]]) -> Iterator[dict[str, Tensor]]:
    """Makes torch's masks on these (path, module, attribute) permanent; gives {parameter name: bool mask, True = kept}.

    The parameters stay the objects that an optimizer holds. Where the block raises, all is put back.
    """
    found = {f"{path}.{name}" if path else name: _Masked(m, name) for path, m, name in weights if _mask_hook(m, name)}
    try:
        for one in found.values():
            one.fold()
        yield {name: one.mask.detach().bool() for name, one in found.items()}
    except BaseException:
        for one in found.values():
            if one.name in one.module._parameters:
                one.undo()
        raise


def takes_masks(weights: Callable[[nn.Module, Sequence[str]], Sequence[tuple[str, nn.Module, str]]]) -> Any:
    """Decorates an __init__(self, model, …, exclude=()): torch's masks on `weights(model, exclude)` become permanent.

    It finds them as `self.given`; where it raises, the model is as it was.
    """

    def decorate(init: Init) -> Init:
        @functools.wraps(init)
        def wrapped(self: Any, model: nn.Module, *args: Any, exclude: Sequence[str] = (), **options: Any) -> None:
            found = weights(model, exclude) if isinstance(model, nn.Module) else ()
            with folded(model, found) as self.given:
                init(self, model, *args, exclude=exclude, **options)

        return wrapped  # type: ignore[return-value]

    return decorate
