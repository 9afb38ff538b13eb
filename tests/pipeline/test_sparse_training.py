"""Sparse from the start on real digits: exact counts at every step, fixed layers, determinism, and no dense parent."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from prunebench.cell import Cell, Recipe
from prunebench.masks import pruned_count
from prunebench.pipeline import Lab, artifact, epochs_of, key_of, model_of
from prunebench.store import Store
from prunebench.training import loop as training

RECIPE = Recipe(name="rigl", batch_size=128, epochs=3, regrow="gradient", regrow_every=4, regrow_fraction=0.4)
CELL = Cell("digits:size=8", "lenet300", "random", "weight", "layerwise", "one_shot", 0.9, recipe=RECIPE)
SIZES = {"fc1.weight": 64 * 300, "fc2.weight": 300 * 100, "fc3.weight": 100 * 10}


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def data(one_core, tmp_path_factory):
    lab = Lab(Store(tmp_path_factory.mktemp("none")), tmp_path_factory.mktemp("data"))
    lab.data(CELL.dataset)
    return lab._data


@pytest.fixture
def lab(tmp_path, data):
    return Lab(Store(tmp_path), tmp_path, _data=data)


def watched(monkeypatch):
    """The nonzero places of every layer before each step."""
    seen, fit = [], training.fit

    def spy(model, data, recipe, **options):
        def note(step, steps):
            seen.append({name: model.get_parameter(name).detach() != 0 for name in SIZES})

        return fit(model, data, recipe, **{**options, "before_step": note})

    monkeypatch.setattr(training, "fit", spy)
    return seen


@pytest.mark.parametrize("kind", ["gradient", "random"])
def test_counts_are_exact_at_every_step(lab, monkeypatch, kind):
    seen = watched(monkeypatch)
    made = artifact(replace(CELL, recipe=replace(RECIPE, regrow=kind)), lab)
    kept = {name: n - pruned_count(n, 0.9) for name, n in SIZES.items()}
    assert len(seen) == 33
    moved = 0
    for before, after in pairwise(seen):
        for name, count in kept.items():
            # A weight just grown is a zero inside the mask until its first step.
            assert int(after[name].sum()) <= count
            moved += int((after[name] & ~before[name]).sum())
    assert {name: int(mask.sum()) for name, mask in seen[0].items()} == kept
    assert moved > 500
    assert made.meta["kept"] == sum(kept.values())
    assert epochs_of(CELL) == 3


def test_static_masks_stay_and_the_kept_weights_start_as_scored(lab, monkeypatch):
    seen = watched(monkeypatch)
    made = artifact(replace(CELL, criterion="snip", scope="global", recipe=replace(RECIPE, regrow="static")), lab)
    assert all(torch.equal(seen[0][name], now[name]) for now in seen[1:] for name in SIZES)
    total = sum(SIZES.values())
    assert made.meta["kept"] == total - pruned_count(total, 0.9)
    assert sum(int((t != 0).sum()) for n, t in made.state.items() if n in SIZES) == made.meta["kept"]
    assert lab.trained == 1


def test_it_trains_no_dense_parent_and_learns(lab):
    cell = replace(CELL, recipe=replace(RECIPE, epochs=10, learning_rate=5e-3))
    made = artifact(cell, lab)
    assert lab.trained == 1
    assert key_of(cell.control, lab.content(cell)) not in lab.store
    assert made.meta["status"] == "ok"
    assert made.meta["validation_accuracy"] > 0.6
    model = model_of(cell, made, lab)
    for name, n in SIZES.items():
        assert 0 < int((model.get_parameter(name) != 0).sum()) <= n - pruned_count(n, 0.9)


def test_moving_nothing_is_training_with_fixed_masks(lab, monkeypatch):
    seen = watched(monkeypatch)
    artifact(replace(CELL, recipe=replace(RECIPE, regrow_fraction=0.0)), lab)
    assert all(torch.equal(seen[0][n], masks[n]) for masks in seen for n in SIZES)


@pytest.mark.parametrize("kind", ["gradient", "random"])
def test_it_is_made_twice_alike(lab, tmp_path, data, kind):
    cell = replace(CELL, recipe=replace(RECIPE, regrow=kind))
    one, two = artifact(cell, lab), artifact(cell, Lab(Store(tmp_path / "other"), tmp_path, _data=data))
    assert one.meta["digest"] == two.meta["digest"]


def test_a_divergence_is_a_status(lab):
    made = artifact(replace(CELL, recipe=replace(RECIPE, optimizer="sgd", learning_rate=1e25)), lab)
    assert (made.meta["status"], made.state) == ("diverged", None)


def test_distilling_it_trains_its_teacher(lab):
    plain = artifact(CELL, lab)
    taught = artifact(replace(CELL, recipe=replace(RECIPE, distill_weight=0.5)), lab)
    assert key_of(CELL.control, lab.content(CELL)) in lab.store
    assert taught.meta["digest"] != plain.meta["digest"]
