"""All that a training needs to go on where it stopped, by name: weights, buffers, optimizer, random numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunebench.errors import PrunebenchError, reason
from prunebench.state_dicts import load_state


class UnfitState(PrunebenchError, ValueError):
    """A kept state that no training of this kind can have written; the message says what of it is wrong."""


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
            found = self.optimizer.state.get(parameter, {})
            moments = {name: value for name, value in found.items() if isinstance(value, Tensor)}
            # That there are none is said, so that a file which lost them is told from it.
            for name, value in (moments or {_NONE: torch.tensor(True)}).items():
                tensors[f"optimizer.{i}.{name}"] = value
        tensors["random.order"] = self.order.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, value in self.scaler.state_dict().items():
            tensors[f"scaler.{name}"] = torch.tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set everything to what `capture` gave; bit for bit, whatever layout the tensors were kept in.

        Raises UnfitState where they are none of this training's, with nothing but random numbers changed.
        """
        weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        check_weights(self.model, weights)
        moments = [_inside(tensors, f"optimizer.{i}.") for i in range(len(self._parameters()))]
        for parameter, found in zip(self._parameters(), moments, strict=True):
            self._check_moments(parameter, found)
        scaler = _inside(tensors, "scaler.")
        for name, value in scaler.items():
            if value.numel() != 1 or not math.isfinite(value.item()):
                raise UnfitState(f"its scaler's {name} is no finite number")
        # What remains is bits that only torch can judge.
        try:
            self.order.set_state(tensors["random.order"])
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"])
            if scaler and self.scaler.is_enabled():
                self.scaler.load_state_dict({name: value.item() for name, value in scaler.items()})
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnfitState(f"its random numbers can't be gone on with ({reason(error)})") from error
        load_state(self.model, weights)
        for parameter, found in zip(self._parameters(), moments, strict=True):
            for name, value in found.items():
                self.optimizer.state[parameter][name] = _like(value, parameter)

    def _check_moments(self, parameter: Tensor, found: dict[str, Tensor]) -> None:
        # Fused optimizers walk through these without looking at their sizes.
        expected = _MOMENTS[type(self.optimizer).__name__]
        without = self.optimizer.defaults.get("momentum") == 0 and not found
        if found.keys() == {_NONE} or without:
            found.clear()
        elif found.keys() != expected:
            raise UnfitState(f"its optimizer's state holds {', '.join(sorted(found)) or 'nothing'}")
        for name, value in found.items():
            step = name == "step"
            if value.shape != (() if step else parameter.shape) or value.dtype != (
                torch.float32 if step else parameter.dtype
            ):
                raise UnfitState(f"its optimizer's {name} has another shape or type than it must")
            if step and not (math.isfinite(value.item()) and value.item() >= 0):
                raise UnfitState(f"its optimizer counts {value.item()} steps")

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


_NONE = "none"  # a parameter's moments where nothing ever flowed through it
_MOMENTS = {"Adam": {"step", "exp_avg", "exp_avg_sq"}, "SGD": {"momentum_buffer"}}


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """UnfitState unless these are weights and buffers of the model, the weights finite as every kept epoch's are."""
    wanted = {name: (t.shape, t.dtype) for name, t in model.state_dict().items()}
    if {name: (t.shape, t.dtype) for name, t in weights.items()} != wanted:
        raise UnfitState("its weights are not of this model")
    for name, _ in model.named_parameters():
        if not bool(torch.isfinite(weights[name]).all()):
            raise UnfitState(f"its {name} holds values that are not finite")


def _inside(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    # In the parameter's own layout: torch's fused optimizers walk both in memory order.
    return torch.empty_like(parameter).copy_(value).detach()
