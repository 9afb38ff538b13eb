"""Models that aren't sparse, or not enough: the ways torch runs them, and our own, by measurement."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from prunebench.engine.summary import torch_row

_ROUNDS = 3
_SECONDS = 0.1  # of one measurement, at least one run
_BETTER = 0.97  # another form is taken for so much


class ChannelsLast(nn.Module):
    """A model in torch's channels-last memory format, its input converted."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> Any:
        """As the model."""
        return self.model(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)


class Frozen(nn.Module):
    """A model traced, frozen and prepared for oneDNN by torch.jit; its weights are inside the program."""

    def __init__(self, model: nn.Module, example: torch.Tensor):
        super().__init__()
        tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
        self.nbytes = sum(tensors.values())
        self.rows = [torch_row(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, and still its fastest way on many CPUs
            traced = torch.jit.trace(model, example, check_trace=False)
            frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        self.run: list[Any] = [frozen]  # in a list: no submodule, its parameters are constants

    def forward(self, x: torch.Tensor) -> Any:
        """As the model."""
        return self.run[0](x)


def _contiguous(y: Any) -> Any:
    return tree_map(lambda t: t.contiguous() if isinstance(t, torch.Tensor) else t, y)


def _seconds(module: nn.Module, example: torch.Tensor) -> float:
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while True:
        start = time.perf_counter()
        _contiguous(module(example))
        end = time.perf_counter()
        best = min(best, end - start)
        if end > until:
            return best


def keeps_nan(candidate: nn.Module, model: nn.Module, example: torch.Tensor) -> bool:
    """Whether a NaN in an input comes out where it does from the model: a ReLU fused by oneDNN makes it a zero."""
    x = example.contiguous().clone()
    x.view(-1)[x.numel() // 2] = float("nan")
    pairs = zip(*(tree_flatten(m(x))[0] for m in (candidate, model)), strict=True)
    return all(torch.equal(a.isnan(), b.isnan()) for a, b in pairs if isinstance(a, torch.Tensor))


def fastest(
    forms: dict[str, nn.Module],
    more: dict[str, Callable[[], nn.Module]],
    right: Callable[[nn.Module], bool],
    example: torch.Tensor,
) -> tuple[str, nn.Module]:
    """The name and module of the fastest form: those there are and those that can be made and are right."""
    forms = dict(forms)
    for name, make in more.items():
        try:
            module = make()
            module(example)  # torch.jit specialises in the first runs
            if right(module):
                forms[name] = module
        except Exception:  # a model that this way can't run
            continue
    times: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name, module in forms.items():
            times[name] = min(times.get(name, float("inf")), _seconds(module, example))
    first = next(iter(forms))
    name = min(times, key=times.__getitem__)
    name = name if times[name] < _BETTER * times[first] else first
    return name, forms[name]


def torch_forms(model: nn.Module, example: torch.Tensor) -> dict[str, Callable[[], nn.Module]]:
    """The ways to have torch run the whole model; the model is copied."""
    return {
        "channels_last": lambda: ChannelsLast(copy.deepcopy(model)),
        "frozen": lambda: Frozen(copy.deepcopy(model), example),
    }
