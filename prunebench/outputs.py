"""What a model returns, as the one tensor that is compared and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def logits(output: Any) -> Tensor:
    """The output tensor: itself, or `.logits` of what Hugging Face's models return; UsageError for anything else."""
    import torch

    found = getattr(output, "logits", None) if not isinstance(output, torch.Tensor) else output
    if not isinstance(found, torch.Tensor):
        raise UsageError(
            f"the model returns {type(output).__name__}, which is no tensor and has no logits; wrap it in a module "
            "that returns one tensor"
        )
    return found
