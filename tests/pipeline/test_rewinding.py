"""Rewinding on real digits: where each round starts, how long it trains, exact sparsity, and whose key changes."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import prunebench as pb
from prunebench import machine, pipeline
from prunebench.cell import Cell, Recipe, derive_seed
from prunebench.masks import masks_of, pruned_count, sparsity_of
from prunebench.pipeline import Lab, artifact, epochs_of, fresh, key_of, model_of
from prunebench.pipeline.rewinding import early_state
from prunebench.store import Store
from prunebench.training import loop as training

RECIPE = Recipe(
    name="ticket", optimizer="sgd", learning_rate=0.05, batch_size=128, epochs=3, prune_rounds=3, rewind="weights"
)
CELL = Cell("digits:size=8", "lenet300", "l1", "weight", "global", "linear", 0.8, recipe=RECIPE)
PRUNABLE = 64 * 300 + 300 * 100 + 100 * 10


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def warm(tmp_path_factory, one_core):
    lab = Lab(Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("data"))
    artifact(CELL.control, lab)
    return lab


@pytest.fixture
def lab(warm):
    return Lab(Store(warm.store.root), warm.data_root, _data=warm._data)


@pytest.fixture
def starts(monkeypatch):
    """What each `fit` was called with, and the weights it began and ended with."""
    seen = []
    fit = training.fit

    def spy(model, data, recipe, **options):
        begin = {n: t.clone() for n, t in model.state_dict().items()}
        result = fit(model, data, recipe, **options)
        seen.append((options, begin, {n: t.clone() for n, t in model.state_dict().items()}))
        return result

    monkeypatch.setattr(training, "fit", spy)
    return seen


def of(recipe, **changes):
    return replace(CELL, recipe=replace(RECIPE, **recipe), **changes)


def test_every_round_starts_at_the_initial_weights(lab, starts):
    initial = fresh(CELL, lab).state_dict()
    made = artifact(CELL, lab)
    assert len(starts) == 3
    gone = []
    for options, begin, end in starts:
        masks = {n: begin[n] != 0 for n in begin if n.endswith("weight")}
        for name, mask in masks.items():
            assert torch.equal(begin[name], initial[name] * mask)
            assert not end[name][~mask].any()
        assert all(torch.equal(begin[n], initial[n]) for n in begin if n.endswith("bias"))
        gone.append(sum(int((~m).sum()) for m in masks.values()))
        assert (options["epochs"], options["first_epoch"], options["learning_rate"]) == (3, 0, 0.05)
    assert gone == [pruned_count(PRUNABLE, 0.8 * k / 3) for k in (1, 2, 3)]
    assert len({options["seed"] for options, _, _ in starts}) == 3
    assert made.meta["kept"] == PRUNABLE - gone[-1]
    assert sparsity_of(masks_of(model_of(CELL, made, lab))) == pytest.approx(0.8, abs=1e-4)


def test_each_round_prunes_what_the_one_before_trained(lab, starts):
    artifact(of({}, sparsity=0.6), lab)
    for (_, _, before), (_, begin, _) in pairwise(starts):
        kept = {n: begin[n] != 0 for n in begin if n.endswith("weight")}
        largest_gone = max(float(before[n][~m].abs().max()) for n, m in kept.items())
        assert largest_gone <= min(float(before[n][m].abs().min()) for n, m in kept.items())


def test_a_geometric_schedule_prunes_the_same_share_every_round(lab, starts, registry_sandbox):
    @pb.schedule("halving")
    def halving(t):
        return 1.0 if t == 1.0 else (1 - 0.125**t) / 0.875

    artifact(of({}, schedule="halving", sparsity=0.875), lab)
    left = [sum(int((b[n] != 0).sum()) for n in b if n.endswith("weight")) for _, b, _ in starts]
    assert left == [pytest.approx(PRUNABLE * 0.5**k, abs=1) for k in (1, 2, 3)]


def test_one_shot_is_a_single_round(lab, starts):
    cell = of({}, schedule="one_shot")
    artifact(cell, lab)
    assert len(starts) == 1 == epochs_of(cell) / 3


def test_learning_rate_rewinding_keeps_the_weights(lab, starts):
    cell = of({"rewind": "learning_rate", "rewind_epoch": 1})
    artifact(cell, lab)
    ends = [artifact(CELL.control, lab).state, *(end for _, _, end in starts)]
    for (options, begin, _), before in zip(starts, ends, strict=False):
        assert options["first_epoch"] == 1
        for name in begin:
            mask = begin[name] != 0 if name.endswith("weight") else True
            assert torch.equal(begin[name], before[name] * mask)
    assert epochs_of(cell) == 3 * 2


def test_an_early_epoch_is_on_the_dense_training_s_way(lab, starts):
    cell = of({"rewind_epoch": 2})
    early = early_state(cell, lab)
    # The dense training once more, looked at after two epochs.
    model, seen = fresh(cell, lab), []
    seed = derive_seed(0, "dense")

    def look(epoch):
        if epoch.number == 2:
            seen.append({n: t.clone() for n, t in model.state_dict().items()})

    with machine.threads(1):  # as the pipeline: the number of threads decides the order of sums
        training.fit(model, lab.data(cell.dataset), RECIPE, epochs=3, learning_rate=0.05, seed=seed, after_epoch=look)
    dense = artifact(cell.control, lab).state
    assert all(torch.equal(model.state_dict()[n], dense[n]) for n in dense)
    assert all(torch.equal(seen[0][n], early[n]) for n in early)
    assert not all(torch.equal(early[n], dense[n]) for n in dense)
    starts.clear()
    assert all(torch.equal(t, early[n]) for n, t in early_state(cell, lab).items())
    assert starts == []  # from the store
    artifact(cell, lab)
    _, begin, _ = starts[0]
    assert all(torch.equal(begin[n], early[n] * (begin[n] != 0)) for n in begin)
    assert {options["first_epoch"] for options, _, _ in starts} == {2}


def test_rewinding_leaves_the_dense_key_alone():
    plain = replace(CELL, recipe=replace(RECIPE, rewind="none"))
    keys = {key_of(c) for c in (plain, CELL, of({"rewind_epoch": 1}), of({"rewind": "learning_rate"}))}
    assert len(keys) == 4
    assert {key_of(c.control) for c in (plain, CELL, of({"rewind_epoch": 1}))} == {key_of(plain.control)}


def test_a_parent_that_diverged_is_told(lab):
    cell = of({"learning_rate": 1e25, "rewind_epoch": 2})
    made = artifact(cell, lab)
    assert (made.meta["status"], made.meta["reason"]) == ("diverged", "its dense parent diverged")


def test_a_round_that_diverges_ends_it(lab, monkeypatch):
    fit, calls = training.fit, []

    def spy(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise training.Diverged("training diverged in epoch 1 of 3: the loss is nan")
        return fit(*arguments, **options)

    monkeypatch.setattr(training, "fit", spy)
    made = artifact(of({}, sparsity=0.51), lab)
    assert (made.meta["status"], made.state, len(calls)) == ("diverged", None, 2)


def test_progress_counts_all_rounds(lab):
    told = []
    cell = of({"rewind_epoch": 2}, sparsity=0.7)
    lab.tell = lambda said, step, steps: told.append((step, steps)) if said == cell else None
    artifact(cell, lab)
    assert told == [(33, 99), (66, 99), (99, 99)]
    assert pipeline.epochs_of(cell) == 3
