"""One training of a cell's model, with what surrounds it: threads, device, resuming after a kill, log, validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunebench import controls, pipeline
from prunebench.cell import Cell, derive_seed, digest
from prunebench.state_dicts import load_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset
    from prunebench.pipeline import Lab
    from prunebench.pipeline.training_log import TrainingLog
    from prunebench.pipeline.unfinished import Unfinished
    from prunebench.proportions import Given
    from prunebench.pruner import Pruner
    from prunebench.store import Artifact

SCORING_SAMPLES = 1024  # training samples shown to criteria that need data
SCORING_BATCH = 256


@dataclass
class Making:
    """The making of one artifact: its model and pruner, the state kept for a kill, and its log.

    `kept_values` are JSON values that surround the loop, `generator` one more source of random numbers; both come back
    after a kill. rounds: how often `fitted` is called in all.
    """

    cell: Cell
    lab: Lab
    spec: dict[str, Any]
    model: nn.Module
    data: Dataset
    unfinished: Unfinished
    rounds: int = 1
    pruner: Pruner | None = None
    generator: Any = None
    kept_values: dict[str, Any] = field(default_factory=dict)
    collapses: set[str] = field(default_factory=set)
    not_pruned: set[str] = field(default_factory=set)
    _caught: list[Any] = field(default_factory=list)
    _log: TrainingLog | None = None

    @property
    def resumed(self) -> bool:
        """True where a killed run left a state to go on from."""
        return self.unfinished.values is not None

    def restore(self) -> None:
        """Put weights, masks, sums, values and generator back as the killed run kept them.

        Raises UnfitState where no run of this training can have kept that.
        """
        from prunebench.pipeline import surroundings
        from prunebench.training.state import check_weights

        u = self.unfinished
        if u.values is None:
            return
        # `fit` loads them too, but what watched the training remembers the weights at which it goes on.
        weights = u.more("fit.model.")
        check_weights(self.model, weights)
        load_state(self.model, weights)
        if self.pruner is not None:
            surroundings.restore_pruner(self.pruner, u, self.lab.device)
        if self.generator is not None:
            surroundings.restore_generator(self.generator, u)
        self.kept_values.update(surroundings.counts(u, self.kept_values))
        self.collapses |= surroundings.words(u, "collapses")
        self.not_pruned |= surroundings.words(u, "not_pruned")

    def fitted(self, round_: int = 0, **options: Any) -> dict[str, Any]:
        """Run `fit` with the options given, in a round; returns metadata. A diverged training is a status.

        recipe: another than the cell's.
        """
        from prunebench.machine import threads
        from prunebench.training.loop import Diverged, fit, useful_threads

        recipe, tell = options.pop("recipe", self.cell.recipe), self.lab.tell

        def progress(step: int, steps: int) -> None:
            if tell:
                tell(self.cell, round_ * steps + step, self.rounds * steps)

        meta: dict[str, Any]
        with threads(useful_threads(self.model, self.data, recipe)):
            try:
                loss = fit(
                    self.model,
                    self.data,
                    recipe,
                    progress=progress,
                    after_epoch=self._logger(round_),
                    keeper=self.unfinished.keeper(round_, self._around),
                    **options,
                )
            except Diverged as error:
                return {"status": "diverged", "reason": str(error), **self._facts()}
        meta = {"status": "ok", "reason": None, "epochs": options["epochs"], **self._facts()}
        return {**meta, "loss": loss if options["epochs"] else None, "validation_accuracy": self.validation()}

    def validation(self) -> float:
        """The model's accuracy on the validation split."""
        from prunebench.training.loop import accuracy

        return accuracy(self.model.eval(), self.data, self.data.validation)

    @contextmanager
    def noting_collapse(self) -> Iterator[None]:
        """Record the layer-collapse warnings raised inside, and let no warning out."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._caught = caught
            yield
            self._note()

    def publish(self, meta: dict[str, Any]) -> Artifact:
        """Put what was made into the store; the kept state goes."""
        state = {n: t.cpu() for n, t in self.model.state_dict().items()} if meta["status"] == "ok" else None
        made = self.lab.store.put(digest(self.spec), self.spec, meta, state)
        self.unfinished.remove()
        if self._log is not None:
            self._log.close()
        return made

    def with_masks(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The metadata with what is known of the masks: weights kept, those each pruning took per layer, collapse."""
        assert self.pruner is not None
        kept = sum(int(mask.sum()) for mask in self.pruner.masks.values())
        warned = {"collapse": max(self.collapses, default=None), "not_pruned": max(self.not_pruned, default=None)}
        return {**meta, "kept": kept, "prunings": self.pruner.prunings, **warned}

    def _note(self) -> None:
        from prunebench.masks import NotPrunedWarning

        found = [str(w.message) for w in self._caught]
        self.collapses |= {text for text in found if "layer collapse" in text}
        self.not_pruned |= {str(w.message) for w in self._caught if issubclass(w.category, NotPrunedWarning)}

    def _facts(self) -> dict[str, Any]:
        return {"training_seconds": self.unfinished.elapsed, "device": self.lab.device}

    def _around(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._note()
        values: dict[str, Any] = {"around": self.kept_values, "share": None}
        values |= {"collapses": sorted(self.collapses), "not_pruned": sorted(self.not_pruned)}
        tensors = {}
        if self.pruner is not None:
            tensors = {f"mask.{name}": mask for name, mask in self.pruner.masks.items()}
            tensors |= {f"watched.{name}": t for name, t in self.pruner.watching.state().items()}
            values["share"], values["prunings"] = self.pruner.share, self.pruner.prunings
        if self.generator is not None:
            tensors["generator"] = self.generator.get_state()
        return tensors, values

    def _logger(self, round_: int) -> Callable[[Any], None] | None:
        if self.lab.logs is None:
            return None
        from prunebench.pipeline.training_log import TrainingLog

        self._log = self._log or TrainingLog(
            self.lab.logs / f"{self.cell.id}-{digest(self.spec)[:8]}", self.lab.tensorboard
        )
        log = self._log

        def write(epoch: Any) -> None:
            log.write(
                round=round_,
                epoch=epoch.number,
                step=epoch.step,
                lr=epoch.learning_rate,
                loss=epoch.loss,
                validation_accuracy=self.validation(),
                sparsity=self.pruner.current_sparsity if self.pruner else 0.0,
                seconds=self.unfinished.elapsed,
            )

        return write


def making_of(cell: Cell, lab: Lab, model: nn.Module, spec: dict[str, Any] | None = None, rounds: int = 1) -> Making:
    """The making of a cell's artifact, or of the one that another spec describes, on the lab's device."""
    from prunebench.pipeline.unfinished import Unfinished
    from prunebench.training.state import UnfitState

    spec = spec or pipeline.spec_of(cell, lab.content(cell))
    unfinished = Unfinished(lab.store.root / "unfinished", digest(spec), lab.keep_seconds)
    if unfinished.stage >= rounds:
        raise UnfitState(f"its stage is {unfinished.stage}, and this training has {rounds}")
    model.to(lab.device)
    return Making(cell, lab, spec, model, lab.training_data(cell.dataset), unfinished, rounds)


def pruner_of(cell: Cell, making: Making, steps: int, start: bool) -> Pruner:
    """The cell's pruner on the model in the making; start: a one-shot schedule prunes now."""
    from prunebench.pruner import Pruner

    proportions = proportions_of(cell, making.lab)
    return Pruner(
        making.model,
        cell.sparsity if proportions is None else None,
        cell.criterion,
        cell.scope,
        cell.schedule,
        steps,
        granularity=cell.granularity,
        data=_scoring_data(making.data, cell.seed),
        proportions=proportions,
        batch_norm="running" if cell.recipe.regrow == "none" else "batch",  # nothing has run yet
        start=start,
    )


def proportions_of(cell: Cell, lab: Lab) -> Given | None:
    """What a twin copies: the weights that each pruning of its original left out of every layer; None for others."""
    original = controls.original(cell)
    if original is None:
        return None
    made = pipeline.artifact(original, lab)
    if "prunings" in made.meta:
        return list(made.meta["prunings"])
    # Stored before prunings were recorded: its zeros tell the last one, the schedule those before.
    from prunebench.masks import masks_of
    from prunebench.proportions import removed

    return removed(masks_of(pipeline.model_of(original, made, lab)))


def teacher_of(cell: Cell, lab: Lab) -> nn.Module | None:
    """The dense parent to distill from, where the recipe asks for it and it was trained."""
    if cell.recipe.distill_weight == 0.0:
        return None
    parent = pipeline.artifact(cell.control, lab)
    return None if parent.state is None else pipeline.model_of(cell, parent, lab).to(lab.device)


def mask_seed(cell: Cell, lab: Lab, *purpose: str) -> AbstractContextManager[None]:
    """torch's generators seeded for drawing masks, and put back afterwards."""
    import torch

    from prunebench.devices import own_random

    return own_random(derive_seed(cell.seed, "masks", *purpose), torch.device(lab.device))


def orphan(cell: Cell, lab: Lab, reason: str = "its dense parent diverged") -> Artifact:
    """What is published where a checkpoint that a cell starts from diverged."""
    spec = pipeline.spec_of(cell, lab.content(cell))
    return lab.store.put(digest(spec), spec, {"status": "diverged", "reason": reason}, None)


def _scoring_data(data: Dataset, seed: int) -> list[tuple[Tensor, Tensor]]:
    import torch

    generator = torch.Generator().manual_seed(derive_seed(seed, "scoring"))
    chosen = torch.randperm(len(data.train), generator=generator)[:SCORING_SAMPLES]
    return [(data.normalise(data.train.images[i]), data.train.labels[i]) for i in chosen.split(SCORING_BATCH)]
