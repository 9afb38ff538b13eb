"""A slice of the real thing: on official MNIST, pruning at 90 % keeps what a network has learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prunebench.cell import Cell, Recipe
from prunebench.datasets.base import Dataset, Split
from prunebench.pipeline import Lab, artifact, model_of
from prunebench.store import Store
from prunebench.training.loop import accuracy

RECIPE = Recipe(name="slice", epochs=4, fine_tune_epochs=3)


@pytest.fixture(scope="module")
def lab(shared_data, tmp_path_factory):
    """A laboratory whose MNIST has 12,000 training images: seconds, not minutes."""
    lab = Lab(Store(tmp_path_factory.mktemp("store")), shared_data)
    whole = lab.data("mnist")
    part = Split(whole.train.images[:12_000], whole.train.labels[:12_000])
    lab._data["mnist"] = Dataset("mnist", 10, part, whole.validation, whole.test, whole.mean, whole.std)
    return lab


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("lenet300", 0.92), ("lenet5", 0.96)])
def test_nine_in_ten_weights_can_go(lab, model, least):
    dense = Cell("mnist", model, recipe=RECIPE)
    pruned = replace(dense, criterion="l1", granularity="weight", scope="global", schedule="agp", sparsity=0.9)
    data = lab.data("mnist")
    found = {}
    for name, cell in (("dense", dense), ("pruned", pruned)):
        model_ = model_of(cell, artifact(cell, lab), lab)
        found[name] = accuracy(model_, data, data.test)
    assert found["dense"] >= least
    assert found["pruned"] >= found["dense"] - 0.01
    chance = replace(pruned, criterion="random")
    assert accuracy(model_of(chance, artifact(chance, lab), lab), data, data.test) < found["pruned"]
