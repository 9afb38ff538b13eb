"""Need `movement`: -Σ w·g over the steps of a training, the way each weight was driven from zero (or towards it).

Sanh et al. 2020, "Movement pruning: adaptive sparsity by fine-tuning", without the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunebench.criteria.gathering import gradients
from prunebench.criteria.gathering.run import Run, precise
from prunebench.errors import UsageError


class MovementObserver:
    """Sums -w·g step by step: `observe` after every optimizer step, before gradients are cleared.

    A gradient is that at the weights before the step, so those are remembered from one call to the next.
    """

    def __init__(self, modules: Mapping[str, Any]) -> None:
        self.steps = 0
        self._modules = modules
        self.totals: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self.renew()

    def observe(self) -> None:
        """Take in the gradients that the last step used; nothing where there are none."""
        gradients_ = {name: module.weight.grad for name, module in self._modules.items()}
        found = {name: g for name, g in gradients_.items() if g is not None}
        if not found:
            return
        for name, gradient in found.items():
            before = self._before[name]
            if name not in self.totals:
                self.totals[name] = torch.zeros_like(before, dtype=precise(before.dtype))
            self.totals[name].addcmul_(before, gradient.detach().to(before.dtype), value=-1.0)
        self.steps += 1

    def renew(self) -> None:
        """Remember the weights as they are now, masks applied: the next gradient is taken there."""
        with torch.no_grad():
            for name, module in self._modules.items():
                if name in self._before and self._before[name].device == module.weight.device:
                    self._before[name].copy_(module.weight)
                else:
                    self._before[name] = module.weight.detach().clone()

    def state(self) -> dict[str, Tensor]:
        """The sums so far, and of how many steps."""
        totals = {f"total.{name}": total for name, total in self.totals.items()}
        return {**totals, "steps": torch.tensor(self.steps)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, with the model's weights of then back in place.

        Raises KeyError or ValueError where these are no sums of its weights.
        """
        for name, module in self._modules.items():
            total = tensors.get(f"total.{name}", module.weight)
            if total.shape != module.weight.shape or not total.is_floating_point():
                raise ValueError(f"the sums of {name} have another shape or type than its weight")
        steps = tensors["steps"]
        if steps.numel() != 1 or steps.is_floating_point() or steps.item() < 0:
            raise ValueError("the number of steps watched is none")
        self.steps = int(steps)
        self.totals = {
            name: tensors[f"total.{name}"].to(module.weight.device, copy=True)
            for name, module in self._modules.items()
            if f"total.{name}" in tensors
        }
        self.renew()


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: -Σ w·g}, of the weight's shape, at least float32, as the training observed it.

    Before any step was observed it is the first step's, from the data: -w·g with the mean gradient g. Raises
    UsageError where there was neither.
    """
    seen: MovementObserver | None = run.watched
    if seen is not None and seen.steps:
        zeros = run.zeros([name for name in names if name not in seen.totals])
        return {name: seen.totals[name] if name in seen.totals else zeros[name] for name in names}
    if run.data is None:
        raise UsageError(
            f"criterion {run.criterion!r} has seen no gradient; call pruner.step() after optimizer.step() and before "
            "zero_grad(), or pass data=[(x, y), …] for a first estimate"
        )
    found = gradients.gather(run, names)
    return {name: -found[name] * run.weights[name].detach() for name in names}
