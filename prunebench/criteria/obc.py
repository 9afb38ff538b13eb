"""Optimal Brain Compression (Frantar & Alistarh 2022): every layer keeps its outputs as well as it can.

Each output of a layer is a regression on its (unfolded) inputs X with Hessian H = 2XXᵀ: the error ‖wX − ŵX‖² is
½(w − ŵ)ᵀH(w − ŵ). Removing weight q costs w_q²/(2[H⁻¹]_qq), the kept weights of the row then move to the least error.
Which layers are exact and which are not: `removal_losses` and `reconstructed` in prunebench.criteria.reconstruction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


def rebuilt(layer: Layer, keep: Tensor, damping: float = 0.01) -> Tensor:
    """The weight with zeros outside keep and every row's rest at the least output error; of the weight's shape."""
    import torch

    from prunebench.criteria.reconstruction import reconstructed
    from prunebench.rows import from_rows

    weights, kept = _grouped(layer, layer.weight).double(), _grouped(layer, keep)
    found = [reconstructed(w, k, h) for w, k, h in zip(weights, kept, _hessians(layer, damping), strict=True)]
    return from_rows(layer.module, torch.cat(found)).to(layer.weight.dtype)


def _check(damping: float, update: bool) -> None:
    """ValueError for parameters that can't be."""
    if not 0 < damping < math.inf:
        raise ValueError("give damping > 0")


@criterion("obc", needs=("input_gram",), update=rebuilt, check=_check)
def obc(layer: Layer, damping: float = 0.01, update: bool = True) -> Tensor:
    """The loss of removing each weight in the row's greedy order, as a share of the layer's output energy Σ½wᵀHw.

    A share, so that layers can be ranked together whatever their outputs' scale. damping: added to H's diagonal, as a
    share of its mean; update: whether the kept weights move.
    """
    import torch

    from prunebench.criteria.reconstruction import removal_losses
    from prunebench.rows import from_rows

    weights = _grouped(layer, layer.weight).double()
    losses, energy = [], torch.zeros((), dtype=torch.float64, device=weights.device)
    for w, h, gram in zip(weights, _hessians(layer, damping), layer.input_gram, strict=True):
        # An input that was never other than zero costs nothing, whatever the damping makes of it.
        losses.append(removal_losses(w, h) * (gram.diagonal() != 0))
        energy += 0.5 * ((w @ h) * w).sum()
    return from_rows(layer.module, torch.cat(losses)) / energy.clamp(min=torch.finfo(torch.float32).tiny)


def _grouped(layer: Layer, values: Tensor) -> Tensor:
    """(groups, outputs/groups, inputs of one output)."""
    from prunebench.rows import to_rows

    found = to_rows(layer.module, values)
    return found.reshape(len(layer.input_gram), -1, found.shape[1])


def _hessians(layer: Layer, damping: float) -> Tensor:
    """H for each group, (groups, inputs, inputs) float64, its diagonal raised until it can be inverted."""
    hessian = 2 * layer.input_gram.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    # Without any input H is one times the damping, only to be invertible.
    diagonal += damping * mean.where(mean > 0, mean.new_ones(()))
    return hessian
