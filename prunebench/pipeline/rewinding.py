"""Rewinding instead of fine-tuning: prune, go back, and train again for the rest of the dense schedule.

Frankle & Carbin 2019, "The Lottery Ticket Hypothesis": the kept weights go back to their initial values; Frankle et
al. 2020, "Linear Mode Connectivity": to their values at an early epoch k of the dense training; Renda et al. 2020,
"Comparing Rewinding and Fine-tuning": only the learning rate goes back, the weights stay. Iterative: `prune_rounds`
prunings, each followed by a whole training from epoch k on; what each prunes is the schedule's (one_shot: a single
round; geometric: the same share of what is left in every round).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench import pipeline, schedules
from prunebench.cell import Cell, derive_seed, digest
from prunebench.masks import apply
from prunebench.pipeline import stages
from prunebench.state_dicts import load_state

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.pipeline import Lab
    from prunebench.store import Artifact


def rewound(cell: Cell, lab: Lab) -> Artifact:
    """The cell's checkpoint, pruned and trained again in rounds; a killed run goes on in its round."""
    recipe = cell.recipe
    parent = pipeline.artifact(cell.control, lab)
    early = early_state(cell, lab) if recipe.rewind == "weights" and parent.state is not None else None
    if parent.state is None or (recipe.rewind == "weights" and early is None):
        return stages.orphan(cell, lab)
    rounds = 1 if schedules.share(cell.schedule, 0.0) == 1.0 else recipe.prune_rounds
    making = stages.making_of(cell, lab, pipeline.model_of(cell, parent, lab), rounds=rounds)
    meta: dict[str, Any] = {}
    with making.noting_collapse():
        making.pruner = pruner = stages.pruner_of(cell, making, rounds, start=False)
        making.restore()
        first = making.unfinished.stage
        for k in range(first, rounds):
            if not (making.resumed and k == first):  # else the kept state is of after this round's pruning
                with stages.mask_seed(cell, lab, str(k)):
                    pruner.prune_to((k + 1) / rounds)
                if early is not None:
                    load_state(making.model, early)
                    apply(making.model, pruner.masks)
                    pruner.watching.renew()
            meta = making.fitted(
                k,
                epochs=recipe.epochs,
                first_epoch=recipe.rewind_epoch,
                learning_rate=recipe.learning_rate,
                seed=derive_seed(cell.seed, "rewind", str(k)),
                after_step=pruner.enforce,
                teacher=stages.teacher_of(cell, lab),
            )
            if meta["status"] != "ok":
                break
    return making.publish(making.with_masks(meta))


def early_spec(cell: Cell, content: str | None = None) -> dict[str, Any]:
    """All that decides the weights that a cell rewinds to, where its recipe names an epoch above 0."""
    dense = pipeline.dense_spec(cell.control, content)
    return {**dense, "kind": "dense_epoch", "epoch": cell.recipe.rewind_epoch}


def early_state(cell: Cell, lab: Lab) -> dict[str, Tensor] | None:
    """Weights and buffers at epoch `rewind_epoch` of the dense training; None where it had diverged by then.

    Epoch 0 is the initial weights. Another is trained again from the same seeds and stored as an artifact of its own,
    so that the dense checkpoint's key doesn't depend on whether anybody will rewind.
    """
    recipe = cell.recipe
    if recipe.rewind_epoch == 0:
        return pipeline.fresh(cell, lab).state_dict()
    spec = early_spec(cell, lab.content(cell))
    found = lab.store.get(digest(spec))
    if found is None:
        with pipeline.making(cell.control, digest(spec), lab):
            found = lab.store.get(digest(spec)) or pipeline.gone_on(digest(spec), lab, lambda: _early(cell, lab, spec))
    return None if found.state is None else dict(found.state)


def _early(cell: Cell, lab: Lab, spec: dict[str, Any]) -> Artifact:
    recipe = cell.recipe
    making = stages.making_of(cell.control, lab, pipeline.fresh(cell, lab), spec)
    meta = making.fitted(
        epochs=recipe.epochs,
        last_epoch=recipe.rewind_epoch,
        learning_rate=recipe.learning_rate,
        seed=derive_seed(cell.seed, "dense"),
    )
    return making.publish(meta)
