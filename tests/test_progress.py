"""What a long grid says: an estimate, then how much is done of how much, whether it measures or only trains."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from prunebench import progress
from prunebench.cell import Case, Cell
from prunebench.progress import Progress
from prunebench.recipe import Recipe

PRUNED = Cell("digits", "lenet300", "l1", "weight", "global", "agp", 0.9, recipe=Recipe(epochs=2, fine_tune_epochs=2))
CELLS = [replace(PRUNED, sparsity=s) for s in (0.5, 0.8, 0.9)]
MADE = SimpleNamespace(meta={"status": "ok", "validation_accuracy": 0.5, "training_seconds": 2.0})


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "step_seconds", lambda cell, lab: 0.01)
    monkeypatch.setattr(progress.pipeline, "to_make", lambda cells, lab: [PRUNED.control, *CELLS])
    return lines


LAB = SimpleNamespace(
    store=SimpleNamespace(check_writable=lambda: None), data=lambda name: SimpleNamespace(train=range(256))
)


def test_a_sweep_counts_its_checkpoints(said):
    told = Progress(said.append, 0.0)
    told.announce_cells(CELLS, LAB)
    for cell in (PRUNED.control, *CELLS):
        told.said(cell, MADE)
    assert "3 cells, 4 checkpoints to train" in said[0]
    assert [line.split()[1] for line in said[1:]] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert said[-1].endswith("; 0 s left")


def test_a_grid_counts_its_cases(said):
    told = Progress(said.append, 1.0)
    told.announce([Case(cell, backend, 64) for cell in CELLS for backend in ("dense", "csr")], LAB)
    told.said(PRUNED.control, MADE)
    told.measured()
    told.said(CELLS[0], MADE)
    assert [line.split()[1] for line in said[1:]] == ["[0/6]", "[1/6]"]


def test_what_the_pruning_warned_of_is_said(said):
    told = Progress(said.append, 0.0)
    told.announce_cells(CELLS, LAB)
    told.said(PRUNED, SimpleNamespace(meta={**MADE.meta, "not_pruned": "not pruned: conv1.weight"}))
    assert "not pruned: conv1.weight" in said[-1]


def test_workers_share_what_is_left(said):
    told = Progress(said.append, 0.0)
    told.workers = 2
    told.announce_cells(CELLS, LAB)
    alone = Progress(said.append, 0.0)
    alone.announce_cells(CELLS, LAB)
    assert told._left() == pytest.approx(alone._left() / 2)
    for cell in (PRUNED.control, *CELLS[:2]):
        told.said(cell, MADE)
    assert told._left() == pytest.approx(MADE.meta["training_seconds"]), "one is left, for one of the two"


def test_on_other_machines_the_first_cells_tell_how_long_it_takes(said, monkeypatch):
    monkeypatch.setattr(progress, "step_seconds", lambda cell, lab: pytest.fail("timed here"))
    told = Progress(said.append, 0.0)
    told.workers = 8
    told.announce_cells(CELLS, LAB, timed=False)
    assert said == ["prunebench: 3 cells, 4 checkpoints to train, 8 at once; the first ones tell how long it takes"]
    told._spoke -= 60
    told.under_way(8)
    assert said[-1] == "prunebench: [0/4] 8 under way; no estimate yet"
    told.under_way(8)
    assert len(said) == 2, "it speaks only now and then"
    told.said(PRUNED.control, MADE)
    assert said[-1].endswith("; 2 s left")
