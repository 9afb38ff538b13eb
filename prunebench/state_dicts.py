"""Loading a state dict that has lost its versions, as any does that comes from a file of plain tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # collecting a grid imports this, and no torch
    from torch import Tensor, nn


def load_state(model: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> Any:
    """`model.load_state_dict(state)`; where the state tells no versions of its layouts, it has the model's own.

    A module that loads old layouts its own way (torchvision's MNASNet) refuses a state without a version.
    """
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", None) or getattr(model.state_dict(), "_metadata", None)
    return model.load_state_dict(versioned, strict=strict)
