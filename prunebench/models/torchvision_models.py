"""Any torchvision classification model by its own name, randomly initialised."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import nn

# Auxiliary heads return tuples in training and are never used at inference.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class GrayToRgb(nn.Module):
    """Repeats one channel three times, because torchvision's models take RGB: (n, 1, h, w) -> (n, 3, h, w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.expand(-1, 3, -1, -1))


def build_torchvision(name: str, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's model with `classes` outputs; vision transformers are built for the image's own size."""
    options = dict(_OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = input_shape[1]
    net = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return GrayToRgb(net) if input_shape[0] == 1 else net
