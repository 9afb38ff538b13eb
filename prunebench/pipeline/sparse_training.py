"""A cell trained sparse from the start: masks on the initial weights, which stay or are moved by `prunebench.regrow`.

The criterion chooses the first masks (`random` as in RigL and SET; SNIP, GraSP and SynFlow were made for masks that
stay), the scope each layer's sparsity, which stays. The network gets the dense training's epochs and rates, and its
data in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench import pipeline
from prunebench.cell import Cell, derive_seed
from prunebench.pipeline import stages

if TYPE_CHECKING:
    from prunebench.pipeline import Lab
    from prunebench.store import Artifact


def grown(cell: Cell, lab: Lab) -> Artifact:
    """The cell's checkpoint, trained with a fixed number of weights per layer at all times."""
    import torch

    from prunebench.masks import prunable_modules
    from prunebench.regrow import Regrower, rescale

    recipe = cell.recipe
    making = stages.making_of(cell, lab, pipeline.fresh(cell, lab))
    making.generator = torch.Generator().manual_seed(derive_seed(cell.seed, "regrow"))
    with making.noting_collapse():
        with stages.mask_seed(cell, lab):
            making.pruner = pruner = stages.pruner_of(cell, making, 1, start=not making.resumed)
        making.restore()
        move = None
        if recipe.regrow != "static":
            weights = {name: module.weight for name, module in prunable_modules(making.model).items()}
            if recipe.regrow_rescale and not making.resumed:
                rescale(weights, pruner.masks)
            move = Regrower(recipe, weights, lambda: pruner.masks, pruner.replace, making.generator).step
        meta = making.fitted(
            epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            seed=derive_seed(cell.seed, "dense"),
            instead_of_step=move,
            after_step=pruner.enforce,
            teacher=stages.teacher_of(cell, lab),
        )
    return making.publish(making.with_masks(meta))
