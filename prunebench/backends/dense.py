"""dense: torch's own kernels on dense weights, zeros and all: the baseline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunebench.backends.torch_modules import TorchExecutor
from prunebench.errors import unknown
from prunebench.registry import backend


def _check(layout: str, **_: Any) -> None:
    if layout not in ("contiguous", "channels_last"):
        raise unknown("layout of backend 'dense':", layout, ("contiguous", "channels_last"))


@backend("dense", check=_check)
class DenseExecutor(TorchExecutor):
    """torch in eager mode; layout "channels_last" stores images and filters with channels innermost."""

    name = "dense"

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1, layout: str = "contiguous") -> None:
        _check(layout)
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        super().__init__(model, example_input, threads)

    def prepare(self, model: nn.Module) -> nn.Module:
        return model.to(memory_format=self.format)

    def __call__(self, x: Tensor) -> Tensor:
        # The conversion is part of the price: callers hold contiguous batches.
        return super().__call__(x.contiguous(memory_format=self.format) if x.ndim == 4 else x)
