"""Need `synaptic_flow`: the gradient of log R, R the sum of outputs for an all-ones input and absolute parameters.

Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow", equation 3.
No sample is read: data gives the input's shape, or else the model's attribute `input_shape`, (channels, height, width).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunebench.criteria.gathering.run import Run
from prunebench.errors import UsageError


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: ∂ log R/∂|w|}, of the weight's shape, float64; all zero where no flow passes, R = 0.

    The logarithm, because R itself grows with depth beyond what float32 holds; it scales all layers alike. Running
    means are zero: with their absolute values, as at initialisation in the paper's own code, a trained network's flow
    would be cut by every ReLU. Raises UsageError where R overflows even float64.
    """
    values: dict[str, Tensor] = {}
    for name, value in (*run.model.named_parameters(), *run.model.named_buffers()):
        if value.is_floating_point():
            value = value.detach().double()
            mean = name.rpartition(".")[2] == "running_mean"
            values[name] = torch.zeros_like(value) if mean else value.abs()
    leaves = {name: values[name].requires_grad_(True) for name in names}
    device = next(iter(run.modules.values())).weight.device
    ones = torch.ones(1, *_shape(run), dtype=torch.float64, device=device)
    total = functional_call(run.model, values, (ones,)).sum()
    if not torch.isfinite(total):
        raise UsageError(f"criterion {run.criterion!r}: the synaptic flow of {type(run.model).__name__} overflows")
    if not total.requires_grad or total == 0:
        return {name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf, requires_grad=False) if part is None else part / total.detach()
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
