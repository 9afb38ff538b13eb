"""Movement pruning (Sanh et al. 2020, "Movement pruning: adaptive sparsity by fine-tuning").

S = -Σ w·g over the steps of fine-tuning: weights that training moves away from zero stay. `pb.Pruner` sums it in every
`step()`; before the first step, and in one-shot `pb.prune`, it is that of the first step, -w·g with g the mean gradient
over the data. Masks only shrink here: what was pruned can't move back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("movement", needs=("movement",))
def movement(layer: Layer) -> Tensor:
    """-Σ w·g, signed."""
    return layer.movement
