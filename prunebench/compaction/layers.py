"""The layers whose filters and input channels can be cut, as the flow of channels through a model found them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass
class Layer:
    """A conv or linear layer: channel ids of its filters and of its input channels.

    Each call adds to `inputs` what is known of each input channel: float64 (channels,), NaN where it depends on the
    model's input. exact: a constant input adds a constant to the output, which isn't so where zeros are padded.
    """

    name: str
    module: Any
    rows: Tensor
    columns: Tensor
    exact: bool
    inputs: list[Tensor] = field(default_factory=list)

    @property
    def groups(self) -> int:
        return int(getattr(self.module, "groups", 1))

    @property
    def depthwise(self) -> bool:
        """True where each filter reads a single channel of many, which then goes with it."""
        return self.groups > 1 and self.groups == len(self.columns)

    def weight(self) -> Tensor:
        """float64 (filters, input channels / groups, taps), on the CPU."""
        return self._oriented().double().cpu()

    def _oriented(self) -> Tensor:
        weight: Tensor = self.module.weight.detach()
        weight = weight.transpose(0, 1) if getattr(self.module, "transposed", False) else weight
        return weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]

    @cached_property
    def reads(self) -> Tensor:
        """bool (filters, input channels): True where a filter has a nonzero weight for a channel."""
        nonzero = (self._oriented() != 0).any(2).cpu()
        if self.groups == 1:
            return nonzero
        wide = torch.zeros(len(self.rows), self.groups, nonzero.shape[1], dtype=torch.bool)
        rows = torch.arange(len(self.rows))
        wide[rows, rows // (len(self.rows) // self.groups)] = nonzero
        return wide.flatten(1)


@dataclass
class Norm:
    """A batch norm: the channel ids that it scales."""

    name: str
    module: _BatchNorm
    columns: Tensor


def can_be_cut(module: nn.Module) -> bool:
    """True for a conv or linear layer with plain weights; a grouped transposed convolution is left alone."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.modules.conv._ConvNd) and not (module.transposed and module.groups > 1)
