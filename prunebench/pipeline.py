"""The experiment's story: train a dense parent, prune and fine-tune it, each stage returning early from the store.

Identity: an artifact's key hashes all that made it, parents' keys included, and REVISION, which is raised on
purpose when training semantics change.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import datasets
from prunebench.cell import Cell, derive_seed, digest
from prunebench.registry import fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset
    from prunebench.store import Artifact, Store

REVISION = 1
SCORING_SAMPLES = 1024  # training samples shown to criteria that need data
SCORING_BATCH = 256


@dataclass
class Lab:
    """What an experiment needs around it: store, data folder, and whom to tell of progress."""

    store: Store
    data_root: Path
    # tell(cell, step, steps) after each epoch; said(cell, artifact) once made; failed(cell, error) where it can't be.
    tell: Callable[[Cell, int, int], None] | None = None
    said: Callable[[Cell, Artifact], None] | None = None
    failed: Callable[[Cell, Exception], None] | None = None
    trained: int = 0
    reused: int = 0
    _data: dict[str, Dataset] = field(default_factory=dict)

    def data(self, name: str) -> Dataset:
        """The dataset, loaded once and kept resident."""
        if name not in self._data:
            self._data[name] = datasets.load(name, self.data_root)
        return self._data[name]

    def content(self, cell: Cell) -> str | None:
        """The hash of the cell's data, part of every key."""
        return self.data(cell.dataset).content

    def publish(self, cell: Cell, meta: dict[str, Any], state: dict[str, Tensor] | None) -> Artifact:
        """Put what was made into the store."""
        content = self.content(cell)
        return self.store.put(key_of(cell, content), spec_of(cell, content), meta, state)


def dense_spec(cell: Cell, content: str | None = None) -> dict[str, Any]:
    """All that decides a dense checkpoint; content: the hash of its data where the name alone doesn't decide it."""
    return {
        "kind": "dense",
        "revision": REVISION,
        "dataset": cell.dataset,
        "data": content,
        "dataset_code": fingerprint("datasets", cell.dataset),
        "model": cell.model,
        "model_code": fingerprint("models", cell.model),
        "seed": cell.seed,
        "recipe": cell.recipe.training_fields(),
    }


def pruned_spec(cell: Cell, content: str | None = None) -> dict[str, Any]:
    """All that decides a pruned checkpoint, its dense parent by key."""
    codes = {
        f"{kind}_code": fingerprint(group, getattr(cell, kind))
        for kind, group in (
            ("criterion", "criteria"),
            ("granularity", "granularities"),
            ("scope", "scopes"),
            ("schedule", "schedules"),
        )
    }
    return {
        "kind": "pruned",
        "revision": REVISION,
        "parent": digest(dense_spec(cell, content)),
        "criterion": cell.criterion,
        "granularity": cell.granularity,
        "scope": cell.scope,
        "schedule": cell.schedule,
        "sparsity": cell.sparsity,
        "recipe": cell.recipe.fine_tuning_fields(),
        **{k: v for k, v in codes.items() if v is not None},
    }


def spec_of(cell: Cell, content: str | None = None) -> dict[str, Any]:
    """All that decides a cell's artifact."""
    return (dense_spec if cell.is_control else pruned_spec)(cell, content)


def key_of(cell: Cell, content: str | None = None) -> str:
    """The key of a cell's artifact."""
    return digest(spec_of(cell, content))


def to_make(cells: Iterable[Cell], lab: Lab) -> list[Cell]:
    """Which cells' artifacts are missing from the store, dense parents included, in the order they'll be made."""
    wanted = {key_of(c, lab.content(c)): c for cell in cells for c in (cell.control, cell)}
    return [cell for key, cell in wanted.items() if key not in lab.store]


def artifact(cell: Cell, lab: Lab) -> Artifact:
    """The cell's checkpoint: from the store, else made now and published there."""
    found = lab.store.get(key_of(cell, lab.content(cell)))
    if found is not None:
        lab.reused += 1
        return found
    lab.store.check_writable()
    made = _train(cell, lab) if cell.is_control else _prune(cell, lab)
    lab.trained += 1
    if lab.said:
        lab.said(cell, made)
    return made


def model_of(cell: Cell, made: Artifact, lab: Lab) -> nn.Module:
    """The cell's model in eval mode with the artifact's weights."""
    model = _fresh(cell, lab.data(cell.dataset))
    model.load_state_dict(made.state)  # type: ignore[arg-type]
    return model.eval()


def _train(cell: Cell, lab: Lab) -> Artifact:
    data = lab.data(cell.dataset)
    model = _fresh(cell, data)
    meta = _fitted(cell, lab, model, data, cell.recipe.epochs, cell.recipe.learning_rate)
    return lab.publish(cell, meta, _state(model, meta))


def _prune(cell: Cell, lab: Lab) -> Artifact:
    """Alternate pruning and fine-tuning: `prune_rounds` prunings spread over the first part of the one budget.

    Every schedule has the same total of fine-tuning epochs; one_shot spends them all after its only pruning.
    """
    import torch

    from prunebench.masks import NotPrunedWarning
    from prunebench.pruner import Pruner
    from prunebench.training import Diverged, finite

    parent = artifact(cell.control, lab)
    if parent.state is None:
        meta: dict[str, Any] = {"status": "diverged", "reason": "its dense parent diverged"}
        return lab.publish(cell, meta, None)
    data = lab.data(cell.dataset)
    model = model_of(cell, parent, lab)
    rounds = cell.recipe.prune_rounds
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(derive_seed(cell.seed, "masks"))
        pruner = Pruner(
            model,
            cell.sparsity,
            cell.criterion,
            cell.scope,
            cell.schedule,
            rounds,
            granularity=cell.granularity,
            data=_scoring_data(data, cell.seed),
        )
        done = 0

        def before_step(step: int, steps: int) -> None:
            nonlocal done
            while done < rounds and step * rounds >= done * steps * cell.recipe.prune_until:
                done += 1
                if not finite(model):
                    raise Diverged(
                        f"fine-tuning diverged before pruning {done} of {rounds}: a weight is NaN or infinite"
                    )
                model.eval()
                pruner.prune_to(done / rounds)
                model.train()

        meta = _fitted(
            cell,
            lab,
            model,
            data,
            cell.recipe.fine_tune_epochs,
            cell.recipe.fine_tune_learning_rate,
            before_step,
            pruner.enforce,
        )
        if meta["status"] == "ok":
            pruner.prune_to(1.0)  # a budget of no epochs never came to it
            meta["validation_accuracy"] = _validation(model, data)
    collapsed = sorted({str(w.message) for w in caught if "layer collapse" in str(w.message)})
    meta["collapse"] = collapsed[-1] if collapsed else None
    dense = sorted({str(w.message) for w in caught if issubclass(w.category, NotPrunedWarning)})
    meta["not_pruned"] = dense[-1] if dense else None
    return lab.publish(cell, meta, _state(model, meta))


def _fitted(
    cell: Cell,
    lab: Lab,
    model: nn.Module,
    data: Dataset,
    epochs: int,
    learning_rate: float,
    before_step: Callable[[int, int], None] | None = None,
    after_step: Callable[[], None] | None = None,
) -> dict[str, Any]:
    import torch

    from prunebench.machine import threads
    from prunebench.training import Diverged, fit, useful_threads

    tell = lab.tell
    start = time.perf_counter()
    with threads(useful_threads(model, data, cell.recipe)), torch.random.fork_rng(devices=[]):
        try:
            loss = fit(
                model,
                data,
                cell.recipe,
                epochs=epochs,
                learning_rate=learning_rate,
                seed=derive_seed(cell.seed, "dense" if cell.is_control else "fine-tune"),
                before_step=before_step,
                after_step=after_step,
                progress=(lambda a, b: tell(cell, a, b)) if tell else None,
            )
        except Diverged as error:
            return {"status": "diverged", "reason": str(error), "training_seconds": time.perf_counter() - start}
    return {
        "status": "ok",
        "reason": None,
        "training_seconds": time.perf_counter() - start,
        "epochs": epochs,
        "loss": loss if epochs else None,
        "validation_accuracy": _validation(model, data),
    }


def _validation(model: nn.Module, data: Dataset) -> float:
    from prunebench.training import accuracy

    return accuracy(model.eval(), data, data.validation)


def _state(model: nn.Module, meta: dict[str, Any]) -> dict[str, Tensor] | None:
    return model.state_dict() if meta["status"] == "ok" else None


def _fresh(cell: Cell, data: Dataset) -> nn.Module:
    from prunebench import models

    return models.build(cell.model, data.input_shape, data.classes, derive_seed(cell.seed, "weights"))


def _scoring_data(data: Dataset, seed: int) -> list[tuple[Tensor, Tensor]]:
    import torch

    generator = torch.Generator().manual_seed(derive_seed(seed, "scoring"))
    chosen = torch.randperm(len(data.train), generator=generator)[:SCORING_SAMPLES]
    return [(data.normalise(data.train.images[i]), data.train.labels[i]) for i in chosen.split(SCORING_BATCH)]
