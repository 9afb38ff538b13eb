"""Random scores: the baseline that every criterion must beat (Blalock et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("random")
def random(layer: Layer) -> Tensor:
    """Uniform in [0, 1), from torch's global generator: the same after the same torch.manual_seed."""
    import torch

    return torch.rand(layer.weight.shape).to(layer.weight.device)
