"""Network slimming (Liu et al. 2017, "Learning efficient convolutional networks through network slimming"): |γ|.

A filter counts for the scale that the batch norm behind it gives its output. All its weights get that score, so that
with granularity "filter" the paper's ranking comes out; single weights of a filter are then equal and go by position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion
from prunebench.rows import of_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("bn_scale", needs=("norm_scale",), reduce="max")
def bn_scale(layer: Layer) -> Tensor:
    """|γ| of the batch norm that reads the filter; 1, γ's initial value, where none does (the classifier, say).

    Raises UsageError for a model without any such batch norm, or that torch.fx can't trace.
    """
    if layer.norm_scale is None:
        return layer.weight.new_ones(layer.weight.shape)
    return of_outputs(layer.module, layer.norm_scale.to(layer.weight.dtype))
