"""Need `synaptic_flow`: the gradient of log R, R the sum of outputs for an all-ones input and absolute parameters.

Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow".
No sample is read: data gives the input's shape, or else the model's attribute `input_shape`, (channels, height, width).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunebench.criteria.gathering.replacing import Replacing
from prunebench.criteria.gathering.run import Run
from prunebench.errors import UsageError


def _same(x: Tensor) -> Tensor:
    return x


def _gate(x: Tensor) -> Tensor:
    """1 whatever x, with the gradient of log x: a gate scales its layer's flow in proportion."""
    return 1.0 + (x - x.detach()) / x.detach().clamp(min=torch.finfo(x.dtype).tiny)


# Flow is never negative, and so large that what saturates would cut it: such activations pass it on as a ReLU does.
_LINEAR = dict.fromkeys(("relu6", "hardtanh", "hardswish", "tanh"), _same)
_GATES = dict.fromkeys(("sigmoid", "hardsigmoid"), _gate)


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: ∂ log R/∂|w|}, of the weight's shape, float64; all zero where no flow passes, R = 0.

    The logarithm, because R itself grows with depth beyond what float32 holds; it scales all layers alike. Running
    means are zero: with their absolute values, as at initialisation in the paper's own code, a trained network's flow
    would be cut by every ReLU. Activations that saturate are taken as linear, sigmoid gates as scaling in proportion;
    layer norms conserve no flow. Raises UsageError where R overflows even float64.
    """
    values: dict[str, Tensor] = {}
    for name, value in (*run.model.named_parameters(), *run.model.named_buffers()):
        if value.is_floating_point():
            value = value.detach()
            mean = name.rpartition(".")[2] == "running_mean"
            values[name] = (torch.zeros_like(value) if mean else value.abs()).double()
    leaves = {name: values[name].requires_grad_(True) for name in names}
    device = next(iter(run.modules.values())).weight.device
    ones = torch.ones(1, *_shape(run), dtype=torch.float64, device=device)
    with Replacing({**_LINEAR, **_GATES}):
        total = functional_call(run.model, values, (ones,)).sum()
    if not torch.isfinite(total):
        raise UsageError(f"criterion {run.criterion!r}: the synaptic flow of {type(run.model).__name__} overflows")
    if not total.requires_grad or total == 0:
        return {name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in leaves.items()}
    # 1/R goes in at the start: dividing every gradient by R would be one more pass over all weights.
    found = torch.autograd.grad(total, list(leaves.values()), 1 / total.detach(), allow_unused=True)
    return {
        name: torch.zeros_like(leaf, requires_grad=False) if part is None else part
        for (name, leaf), part in zip(leaves.items(), found, strict=True)
    }


def knows_shape(model: nn.Module, data: Iterable[Any] | None) -> bool:
    """True where the input's shape can be told."""
    return data is not None or getattr(model, "input_shape", None) is not None


def _shape(run: Run) -> tuple[int, ...]:
    if run.data is not None:
        x, _ = next(run.batches())
        return tuple(x.shape[1:])
    return tuple(run.model.input_shape)  # type: ignore[arg-type]  # there, as `knows_shape` has told
