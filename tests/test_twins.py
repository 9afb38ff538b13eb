"""Twins in the experiment: their cell's counts per layer at every pruning, made after it, diverged with it."""

import json
from dataclasses import replace

import pytest
import torch

from prunebench.cell import Cell, Recipe
from prunebench.controls import original, twins
from prunebench.masks import masks_of
from prunebench.pipeline import Lab, artifact, key_of, model_of, to_make
from prunebench.proportions import removed
from prunebench.store import Store

RECIPE = Recipe(name="brief", batch_size=128, epochs=2, fine_tune_epochs=2, prune_rounds=3)
CONTROL = Cell("digits:size=8", "lenet300", recipe=RECIPE)


def pruned(**changes):
    base = {"criterion": "l2", "granularity": "weight", "scope": "global", "schedule": "agp", "sparsity": 0.9}
    return replace(CONTROL, **{**base, **changes})


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, one_core):
    return Lab(Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("data"))


def counts(cell, lab):
    return removed(masks_of(model_of(cell, artifact(cell, lab), lab)))


@pytest.mark.parametrize("schedule", ["agp", "one_shot"])
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_a_twin_loses_as_much_of_every_layer_at_every_pruning(lab, schedule, granularity):
    cell = pruned(schedule=schedule, granularity=granularity)
    expected = artifact(cell, lab).meta["prunings"]
    assert len(expected) == (1 if schedule == "one_shot" else RECIPE.prune_rounds)
    for twin in twins(cell):
        assert artifact(twin, lab).meta["prunings"] == expected
        assert counts(twin, lab) == counts(cell, lab) == expected[-1]
        assert artifact(twin, lab).meta["spec"]["original"] == key_of(cell)
    random, l1 = (artifact(twin, lab).state["fc1.weight"] for twin in twins(cell))
    assert not torch.equal(random != 0, l1 != 0)


def test_rewinding_and_regrowing_have_twins_too(lab):
    for changes in ({"rewind": "weights"}, {"regrow": "random", "regrow_every": 4}):
        cell = pruned(schedule="one_shot", recipe=replace(RECIPE, **changes))
        # By the record: what regrows starts at zero, so zeros don't tell.
        assert artifact(twins(cell)[0], lab).meta["prunings"] == artifact(cell, lab).meta["prunings"]


def test_the_original_is_made_first_and_once(tmp_path):
    lab = Lab(Store(tmp_path), tmp_path)
    cell = pruned(sparsity=0.5)
    assert to_make(twins(cell), lab) == [CONTROL, cell, *twins(cell)]
    artifact(twins(cell)[1], lab)
    assert lab.trained == 3
    assert to_make([cell, *twins(cell)], lab) == [twins(cell)[0]]


def test_a_twin_of_what_diverged_is_not_trained(lab):
    cell = pruned(recipe=replace(RECIPE, fine_tune_learning_rate=1e30))
    made = artifact(twins(cell)[0], lab)
    assert made.meta["status"] == "diverged"
    assert "copies" in made.meta["reason"]
    assert made.state is None


def test_an_original_stored_before_prunings_were_recorded_is_copied_by_its_zeros(tmp_path):
    lab = Lab(Store(tmp_path), tmp_path)
    cell = pruned(sparsity=0.8)
    made = artifact(cell, lab)
    older = Store(tmp_path / "older")
    meta = {k: v for k, v in made.meta.items() if k not in ("prunings", "schema", "spec", "digest")}
    older.put(made.key, made.meta["spec"], meta, made.state)
    parent = artifact(CONTROL, lab)
    older.put(parent.key, parent.meta["spec"], {"status": "ok", "reason": None}, parent.state)
    again = Lab(older, tmp_path)
    twin = twins(cell)[0]
    assert counts(twin, again) == counts(cell, again) == made.meta["prunings"][-1]
    assert again.trained == 1


def test_what_is_stored_stays_json(lab):
    twin = twins(pruned())[0]
    assert json.loads(json.dumps(artifact(twin, lab).meta["prunings"])) == artifact(twin, lab).meta["prunings"]
    assert original(twin) == pruned()
