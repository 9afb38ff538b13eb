"""The experiment's story: train a dense parent, prune and fine-tune it, each stage returning early from the store.

Identity: an artifact's key hashes all that made it, parents' keys included, and REVISION, which is raised on
purpose when training semantics change.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import controls, datasets
from prunebench.cell import Cell, derive_seed, digest
from prunebench.registry import fingerprint
from prunebench.state_dicts import load_state
from prunebench.untrusted import plain_line

if TYPE_CHECKING:
    from torch import nn

    from prunebench.datasets.base import Dataset
    from prunebench.store import Artifact, Store

REVISION = 1


@dataclass
class Lab:
    """What an experiment needs around it: store, data folder, and whom to tell of progress."""

    store: Store
    data_root: Path
    # tell(cell, step, steps) after each epoch; said(cell, artifact) once made; failed(cell, error) where it can't be.
    tell: Callable[[Cell, int, int], None] | None = None
    said: Callable[[Cell, Artifact], None] | None = None
    failed: Callable[[Cell, Exception], None] | None = None
    waits: Callable[[Cell], None] | None = None  # another process makes the cell's checkpoint
    patient: bool = True  # False: raise Busy instead of waiting for it
    trained: int = 0
    reused: int = 0
    # Where training runs: "cpu" or "cuda". In no key, so that what a GPU trained is found by the machine that times it:
    # the same seeds give the same experiment, up to rounding in the order of floating-point sums (and dropout's draws).
    device: str = "cpu"
    logs: Path | None = None  # folder of training logs
    tensorboard: bool = False
    keep_seconds: float = 30.0  # between two states kept of a training in progress
    _data: dict[str, Dataset] = field(default_factory=dict)
    _moved: dict[str, Dataset] = field(default_factory=dict)

    def data(self, name: str) -> Dataset:
        """The dataset, loaded once and kept resident."""
        if name not in self._data:
            self._data[name] = datasets.load(name, self.data_root)
        return self._data[name]

    def training_data(self, name: str) -> Dataset:
        """The same where training runs."""
        if name not in self._moved:
            self._moved[name] = self.data(name).to(self.device)
        return self._moved[name]

    def content(self, cell: Cell) -> str | None:
        """The hash of the cell's data, part of every key."""
        return self.data(cell.dataset).content


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
    """All that decides a pruned checkpoint, its dense parent by key, and where it copies proportions their cell."""
    codes = {
        f"{kind}_code": fingerprint(group, getattr(cell, kind))
        for kind, group in (
            ("criterion", "criteria"),
            ("granularity", "granularities"),
            ("scope", "scopes"),
            ("schedule", "schedules"),
        )
    }
    original = controls.original(cell)
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
        **({} if original is None else {"original": digest(pruned_spec(original, content))}),
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
    wanted = {key_of(c, lab.content(c)): c for cell in cells for c in (*parents(cell), cell)}
    return [cell for key, cell in wanted.items() if key not in lab.store]


def parents(cell: Cell) -> list[Cell]:
    """The cells whose artifacts a cell's is made from: its dense parent, and for a twin the cell that it copies."""
    original = controls.original(cell)
    return [] if cell.is_control else [cell.control, *([] if original is None else [original])]


def early_key(cell: Cell, content: str | None = None) -> str | None:
    """The key of the early weights that a cell rewinds to, which many cells share; None where it stores none."""
    from prunebench.pipeline.rewinding import early_spec

    stored = not cell.is_control and cell.recipe.rewind == "weights" and cell.recipe.rewind_epoch > 0
    return digest(early_spec(cell, content)) if stored else None


def artifact(cell: Cell, lab: Lab) -> Artifact:
    """The cell's checkpoint: from the store, else made now and published there, by one process at a time."""
    key = key_of(cell, lab.content(cell))
    found = lab.store.get(key)
    if found is None:
        lab.store.check_writable()
        with making(cell, key, lab):
            found = lab.store.get(key)  # whoever made it while this process waited
            if found is None:
                made = gone_on(key, lab, lambda: _make(cell, lab))
                lab.trained += 1
                if lab.said:
                    lab.said(cell, made)
                return made
    lab.reused += 1
    return found


def gone_on(key: str, lab: Lab, make: Callable[[], Artifact]) -> Artifact:
    """What `make` makes of this key; where the state kept of its training can't be gone on with, from the beginning.

    Such a state is set aside, counted with the store's damaged entries, and warned of.
    """
    from prunebench.pipeline.unfinished import path_of
    from prunebench.training.state import UnfitState

    try:
        return make()
    except UnfitState as error:
        path = path_of(lab.store.root / "unfinished", key)
        said = plain_line(error)
        lab.store.put_aside(key, said, path)
        warnings.warn(f"the unfinished training {path} is set aside and begun anew: {said}", stacklevel=2)
        return make()


@contextmanager
def making(cell: Cell, key: str, lab: Lab) -> Iterator[None]:
    """While it lasts no other process makes this key's checkpoint; raises Busy where one does and `lab` isn't patient.

    Waiting is never in a circle: who makes a checkpoint waits only for those it is made from.
    """
    from prunebench.store.locks import Busy

    with ExitStack() as stack:
        try:
            stack.enter_context(lab.store.only_maker(key, wait=False))
        except Busy:
            if not lab.patient:
                raise
            if lab.waits:
                lab.waits(cell)
            stack.enter_context(lab.store.only_maker(key))
        yield


def _make(cell: Cell, lab: Lab) -> Artifact:
    from prunebench.pipeline import fine_tuning, rewinding, sparse_training, stages

    if cell.is_control:
        return fine_tuning.trained(cell, lab)
    original = controls.original(cell)
    if original is not None and artifact(original, lab).state is None:
        return stages.orphan(cell, lab, "the cell whose proportions it copies diverged")
    if cell.recipe.rewind != "none":
        return rewinding.rewound(cell, lab)
    if cell.recipe.regrow != "none":
        return sparse_training.grown(cell, lab)
    return fine_tuning.pruned(cell, lab)


def epochs_of(cell: Cell) -> int:
    """How many epochs the cell's artifact takes to train, its parent's aside."""
    from prunebench import schedules

    recipe = cell.recipe
    if cell.is_control or recipe.regrow != "none":
        return recipe.epochs
    if recipe.rewind == "none":
        return recipe.fine_tune_epochs
    one_shot = schedules.share(cell.schedule, 0.0) == 1.0
    return (1 if one_shot else recipe.prune_rounds) * (recipe.epochs - recipe.rewind_epoch)


def model_of(cell: Cell, made: Artifact, lab: Lab) -> nn.Module:
    """The cell's model in eval mode with the artifact's weights."""
    model = fresh(cell, lab)
    load_state(model, made.state or {})
    return model.eval()


def fresh(cell: Cell, lab: Lab) -> nn.Module:
    """The cell's model with its initial weights."""
    from prunebench import models

    data = lab.data(cell.dataset)
    return models.build(cell.model, data.input_shape, data.classes, derive_seed(cell.seed, "weights"))
