"""Seeing a layer's inputs: hooks on every module that uses a weight, and what each tap of a convolution meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.criteria.gathering.run import Run
from prunebench.errors import UsageError


def watch(run: Run, names: Sequence[str], see: Callable[[str, Any, Tensor, Tensor], None]) -> None:
    """Run all batches forward; see(name, module, input, output) at every use of a weight, shared weights included.

    Raises UsageError naming a layer that the model never ran. The hooks are gone afterwards.
    """
    name_of = {id(run.modules[name].weight): name for name in names}
    seen: set[str] = set()
    handles = []

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        name = name_of[id(module.weight)]
        seen.add(name)
        see(name, module, (args[0] if args else kwargs["input"]).detach(), out.detach())

    try:
        # An attention's projections are no children of the model.
        for module in {id(m): m for m in (*run.model.modules(), *run.modules.values())}.values():
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and id(module.weight) in name_of:
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        with torch.no_grad():
            for x, _ in run.batches():
                run.model(x)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in seen:
            raise UsageError(
                f"criterion {run.criterion!r} needs the inputs of {name}, but the model never ran that layer; "
                f"exclude={[name]!r} leaves it out"
            )


def windows(module: Any, x: Tensor, out: Tensor) -> Tensor:
    """A convolution's input (n, channels, …) as a view (n, channels, *positions, *taps) of what each tap meets.

    Of any dimension, stride, padding, padding mode and dilation. A transposed convolution meets its input with zeros
    in between, and its taps in reverse: they come out last first, and `unflipped` puts them right.
    """
    taps = module.kernel_size
    if x.ndim == len(taps) + 1:  # one sample without its batch dimension
        x, out = x[None], out[None]
    stride = module.stride
    if module.transposed:
        sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
        spread = x.new_zeros(*x.shape[:2], *sizes)
        every: tuple[Any, ...] = (slice(None), slice(None), *[slice(None, None, s) for s in stride])
        spread[every] = x
        pad = []
        for i in reversed(range(len(taps))):
            reach = module.dilation[i] * (taps[i] - 1)
            before = reach - module.padding[i]
            pad += [before, out.shape[2 + i] + reach - spread.shape[2 + i] - before]
        x, stride = F.pad(spread, pad), (1,) * len(taps)
    elif any(module._reversed_padding_repeated_twice):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for i, (k, step, dilation) in enumerate(zip(taps, stride, module.dilation, strict=True)):
        x = x.unfold(2 + i, dilation * (k - 1) + 1, step)[..., ::dilation]
    return x


def unflipped(module: Any, values: Tensor) -> Tensor:
    """Values whose last dimensions are taps as `windows` orders them, in the weight's own order."""
    return values.flip([-1 - i for i in range(len(module.kernel_size))]) if module.transposed else values


def is_convolution(module: Any) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)
