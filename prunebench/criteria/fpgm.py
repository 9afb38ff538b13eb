"""FPGM, filter pruning via geometric median (He et al. 2019): a filter's distances to all others, summed.

A filter near the geometric median of its layer can be replaced by the rest. Every weight gets an equal share of its
filter's sum, so that the sum over the filter is the paper's score; single weights of a filter are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion
from prunebench.rows import of_outputs, to_rows

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("fpgm")
def fpgm(layer: Layer) -> Tensor:
    """Σ_j ‖F_i - F_j‖₂ / (weights of a filter), over all filters j of the layer, float64."""
    import torch

    # By the matrix product, for speed; in double precision, because it cancels where filters are alike.
    rows = to_rows(layer.module, layer.weight).double()
    distances = torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist")
    return of_outputs(layer.module, distances.sum(1) / rows.shape[1])
