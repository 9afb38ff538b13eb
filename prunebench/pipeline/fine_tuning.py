"""Dense training, and pruning with fine-tuning: the usual way, where the dense weights stay and the rate starts low."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prunebench import pipeline
from prunebench.cell import Cell, derive_seed
from prunebench.pipeline import stages

if TYPE_CHECKING:
    from prunebench.pipeline import Lab
    from prunebench.store import Artifact


def trained(cell: Cell, lab: Lab) -> Artifact:
    """The unpruned control's checkpoint."""
    making = stages.making_of(cell, lab, pipeline.fresh(cell, lab))
    recipe = cell.recipe
    return making.publish(
        making.fitted(epochs=recipe.epochs, learning_rate=recipe.learning_rate, seed=derive_seed(cell.seed, "dense"))
    )


def pruned(cell: Cell, lab: Lab) -> Artifact:
    """Alternate pruning and fine-tuning: `prune_rounds` prunings spread over the first part of the one budget.

    Every schedule has the same total of fine-tuning epochs; one_shot spends them all after its only pruning.
    """
    from prunebench.training.loop import Diverged, finite
    from prunebench.training.state import UnfitState

    parent = pipeline.artifact(cell.control, lab)
    if parent.state is None:
        return stages.orphan(cell, lab)
    model = pipeline.model_of(cell, parent, lab)
    recipe, rounds = cell.recipe, cell.recipe.prune_rounds
    making = stages.making_of(cell, lab, model)
    with making.noting_collapse(), stages.mask_seed(cell, lab):
        making.pruner = pruner = stages.pruner_of(cell, making, rounds, start=not making.resumed)
        making.kept_values["done"] = 0
        making.restore()
        if making.kept_values["done"] > rounds:
            raise UnfitState(f"it tells of {making.kept_values['done']} prunings, and this training has {rounds}")

        def before_step(step: int, steps: int) -> None:
            while (done := making.kept_values["done"]) < rounds and (
                step * rounds >= done * steps * recipe.prune_until
            ):
                making.kept_values["done"] = done = done + 1
                if not finite(model):
                    raise Diverged(
                        f"fine-tuning diverged before pruning {done} of {rounds}: a weight is NaN or infinite"
                    )
                model.eval()
                pruner.prune_to(done / rounds)
                model.train()

        meta = making.fitted(
            epochs=recipe.fine_tune_epochs,
            learning_rate=recipe.fine_tune_learning_rate,
            seed=derive_seed(cell.seed, "fine-tune"),
            recipe=replace(recipe, warmup_epochs=0.0),  # warming up is for weights that know nothing yet
            before_step=before_step,
            after_step=pruner.enforce,
            teacher=stages.teacher_of(cell, lab),
        )
        if meta["status"] == "ok":
            pruner.prune_to(1.0)  # a budget of no epochs never came to it
            meta["validation_accuracy"] = making.validation()
    return making.publish(making.with_masks(meta))
