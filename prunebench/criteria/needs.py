"""What a criterion may ask for, and the harness that gathers it: mean gradients and layer inputs, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.errors import UsageError

NEEDS = ("gradients", "activations")
_ATTRIBUTE = {"grad": "gradients", "activations": "activations"}
# Layer inputs are kept for at most this many samples, so that memory stays bounded on large data.
ACTIVATION_SAMPLES = 256


class Layer:
    """What a criterion sees of one layer: name, module, weight and whatever it declared to need.

    weight: the weight, detached; grad: mean gradient of the loss, same shape; activations: the layer's inputs,
    (samples, …) float32, at most ACTIVATION_SAMPLES of them.
    """

    def __init__(self, name: str, module: Any, **gathered: Any) -> None:
        self.name, self.module = name, module
        self.weight: Tensor = module.weight.detach()
        self.__dict__.update(gathered)

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTE:
            raise AttributeError(f"layer.{name} was not asked for; declare needs=({_ATTRIBUTE[name]!r},)")
        raise AttributeError(f"a layer has no {name!r}; it has name, module, weight and what needs=(…) names")


def gather(
    model: nn.Module,
    modules: Mapping[str, Any],
    needs: tuple[str, ...],
    data: Iterable[tuple[Any, Any]] | None,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
    criterion: str,
) -> dict[str, Layer]:
    """The layers with what was asked for; the model's weights, gradients, buffers and mode are left as they were."""
    if not needs or data is None:
        return {name: Layer(name, module) for name, module in modules.items()}
    weights = {name: module.weight for name, module in modules.items()}
    totals = {name: torch.zeros_like(w) for name, w in weights.items()} if "gradients" in needs else {}
    inputs: dict[str, list[Tensor]] = {name: [] for name in modules} if "activations" in needs else {}
    samples = 0
    with _evaluating(model), _recording(modules, inputs):
        for batch in data:
            x, y = _pair(batch, criterion)
            with torch.set_grad_enabled(bool(totals)):
                value = (loss or F.cross_entropy)(model(x), y)
            if totals:
                # Each batch's mean loss weighs by its samples, so that a short last batch counts for what it is.
                gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
                for name, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        totals[name] += gradient * len(x)
            samples += len(x)
    if not samples:
        raise UsageError(
            f"criterion {criterion!r} needs data, but the data given holds no batch; pass data=[(x, y), …]"
        )
    layers = {}
    for name, module in modules.items():
        gathered: dict[str, Any] = {}
        if totals:
            gathered["grad"] = totals[name] / samples
        if inputs:
            if not inputs[name]:
                raise UsageError(
                    f"criterion {criterion!r} needs the inputs of {name}, but the model never ran that layer"
                )
            gathered["activations"] = torch.cat(inputs[name])[:ACTIVATION_SAMPLES]
        layers[name] = Layer(name, module, **gathered)
    return layers


def _pair(batch: Any, criterion: str) -> tuple[Tensor, Tensor]:
    try:
        x, y = batch
    except (TypeError, ValueError):
        raise UsageError(
            f"criterion {criterion!r}: data must be an iterable of (x, y) batches, not of {type(batch).__name__}"
        ) from None
    return x, y


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Evaluation mode, so that batch norm's running statistics don't move and dropout adds no noise.
    modes = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    model.eval()
    for p in frozen:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _recording(modules: Mapping[str, Any], inputs: dict[str, list[Tensor]]) -> Iterator[None]:
    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if sum(len(x) for x in inputs[name]) < ACTIVATION_SAMPLES:
                inputs[name].append(args[0].detach().float())

        return hook

    handles = [modules[name].register_forward_pre_hook(record(name)) for name in inputs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
