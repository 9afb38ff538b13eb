"""All that a training needs to go on where it stopped, by name: weights, buffers, optimizer, random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunebench.state_dicts import load_state


class Keeper(Protocol):
    """Where a training's state is kept between epochs; see prunebench.pipeline.unfinished for the one on disk."""

    def read(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The state to go on from, or None."""

    def due(self) -> bool:
        """True where enough time has passed to pay for writing."""

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace what was kept; values are JSON."""


@dataclass
class TrainingState:
    """The parts of a running training; order is the generator of data order and augmentation, on the CPU."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    order: torch.Generator
    device: torch.device

    def capture(self) -> dict[str, Tensor]:
        """Everything by name, on whatever device it lies."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for i, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{name}"] = value
        tensors["random.order"] = self.order.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, value in self.scaler.state_dict().items():
            tensors[f"scaler.{name}"] = torch.tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set everything to what `capture` gave; bit for bit, whatever layout the tensors were kept in."""
        load_state(
            self.model, {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        for i, parameter in enumerate(self._parameters()):
            prefix = f"optimizer.{i}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    self.optimizer.state[parameter][name.removeprefix(prefix)] = _like(value, parameter)
        self.order.set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        scaler = {n.removeprefix("scaler."): t.item() for n, t in tensors.items() if n.startswith("scaler.")}
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    # In the parameter's own layout: torch's fused optimizers walk both in memory order.
    return torch.empty_like(parameter).copy_(value).detach()
