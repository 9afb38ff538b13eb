"""Wanda (Sun et al. 2024, "A simple and effective pruning approach for large language models"), equation 1.

S = |W_ij|·‖X_j‖₂, compared within an output row, so that every output loses the same share of its weights. In a
convolution X_j is the input channel as one tap of the kernel meets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("wanda", needs=("input_norms",), compare="row")
def wanda(layer: Layer) -> Tensor:
    """|w|·‖x‖₂, x what the weight is multiplied with over all the data."""
    return layer.weight.abs() * layer.input_norms
