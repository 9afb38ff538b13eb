"""Optimal Brain Damage (LeCun et al. 1990), with the diagonal Fisher information for the Hessian's diagonal.

Saliency, equation 5 there: ½·h·w²; h = mean over samples of the squared per-sample gradient, not the squared mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("obd", needs=("hessian_diag",))
def obd(layer: Layer) -> Tensor:
    """½·h·w²."""
    return 0.5 * layer.hessian_diag * layer.weight.square()
