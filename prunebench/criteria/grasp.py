"""GraSP (Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow").

The score there, S(-w) = -w ⊙ Hg, is to first order half of what removing w adds to the squared gradient norm gᵀg. The
paper removes the highest, that is, keeps the weights whose loss would weaken the gradient most; here higher = keep, so
the sign is turned: w ⊙ Hg. The loss is taken on logits / 200, as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("grasp", needs=("hessian_product:temperature=200",))
def grasp(layer: Layer) -> Tensor:
    """w·(Hg), signed: a weight that holds the gradient back scores below zero and goes first."""
    return layer.weight * layer.hessian_product
