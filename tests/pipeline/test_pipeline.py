"""The experiment on real digits: nothing made twice, one dense parent, exact sparsity, divergence as a status."""

from dataclasses import dataclass, replace

import pytest
import torch

import prunebench as pb
from prunebench import pipeline
from prunebench.cell import Cell, Recipe
from prunebench.masks import masks_of, pruned_count, sparsity_of
from prunebench.pipeline import Lab, artifact, dense_spec, key_of, model_of, pruned_spec, to_make
from prunebench.store import Store, StoreError
from prunebench.training import loop as training

RECIPE = Recipe(name="brief", batch_size=128, epochs=2, fine_tune_epochs=2, prune_rounds=3)
CONTROL = Cell("digits:size=8", "lenet300", recipe=RECIPE)
PRUNABLE = 64 * 300 + 300 * 100 + 100 * 10


def pruned(sparsity=0.9, schedule="agp", **changes):
    base = replace(CONTROL, criterion="l1", granularity="weight", scope="global", schedule=schedule, sparsity=sparsity)
    return replace(base, **changes)


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def warm(tmp_path_factory, one_core):
    """A lab whose store holds the control, shared by this module's tests."""
    lab = Lab(Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("data"))
    artifact(CONTROL, lab)
    return lab


@pytest.fixture
def lab(warm):
    return Lab(Store(warm.store.root), warm.data_root, _data=warm._data)


def test_the_second_call_trains_nothing(lab):
    cell = pruned(0.8)
    first = artifact(cell, lab)
    assert (lab.trained, lab.reused) == (1, 1)  # itself, its parent from the store
    again = Lab(Store(lab.store.root), lab.data_root)
    second = artifact(cell, again)
    assert (again.trained, again.reused) == (0, 1)
    assert second.meta == first.meta
    assert all(torch.equal(second.state[k], first.state[k]) for k in first.state)


def test_everything_shares_one_dense_parent(lab):
    cells = [pruned(s, schedule) for s in (0.5, 0.95) for schedule in ("one_shot", "linear")]
    assert to_make(cells, lab) == cells
    parents = {artifact(cell, lab).meta["spec"]["parent"] for cell in cells}
    assert parents == {key_of(CONTROL)}
    assert lab.trained == len(cells)
    assert to_make(cells, lab) == []


def test_what_is_to_be_made_includes_parents_once(tmp_path):
    lab = Lab(Store(tmp_path), tmp_path)
    cells = [pruned(0.5), pruned(0.9)]
    assert to_make(cells, lab) == [CONTROL, *cells]


@pytest.mark.parametrize("schedule", ["one_shot", "linear", "agp"])
@pytest.mark.parametrize(
    ("granularity", "scope"), [("weight", "global"), ("weight", "layerwise"), ("filter", "global")]
)
def test_sparsity_is_exact_after_fine_tuning(lab, schedule, granularity, scope):
    cell = pruned(0.77, schedule, granularity=granularity, scope=scope)
    model = model_of(cell, artifact(cell, lab), lab)
    masks = masks_of(model)
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    if granularity == "filter":
        assert all(mask.flatten(1).all(1).eq(mask.flatten(1).any(1)).all() for mask in masks.values())
        assert removed["fc3.weight"] == 0
        assert sum(removed.values()) / (64 * 300 + 300 * 100) == pytest.approx(0.77, abs=0.01)
    elif scope == "global":
        assert sum(removed.values()) == pruned_count(PRUNABLE, 0.77)
    else:
        assert list(removed.values()) == [pruned_count(n, 0.77) for n in (64 * 300, 300 * 100, 100 * 10)]
    assert not model.training


def test_every_schedule_has_the_same_budget_and_the_same_order_of_data(lab, monkeypatch):
    calls = []

    def spy(model, data, recipe, **options):
        calls.append([options["epochs"], options["learning_rate"], options["seed"], 0])
        after = options["after_step"]

        def count():
            calls[-1][3] += 1
            after()

        return fit(model, data, recipe, **{**options, "after_step": count})

    fit = training.fit
    monkeypatch.setattr(training, "fit", spy)
    for schedule in ("one_shot", "linear", "agp"):
        artifact(pruned(0.61, schedule), lab)
    steps = -(-len(lab.data("digits:size=8").train) // 128) * 2
    assert calls[0][0] == 2
    assert calls[0][3] == steps
    assert calls[0] == calls[1] == calls[2]


def test_fine_tuning_has_no_warm_up(lab, monkeypatch):
    seen, fit = [], training.fit

    def spy(model, data, recipe, **options):
        seen.append((recipe.warmup_epochs, options["learning_rate"]))
        return fit(model, data, recipe, **options)

    monkeypatch.setattr(training, "fit", spy)
    artifact(pruned(0.5, recipe=replace(RECIPE, warmup_epochs=1.0, fine_tune_learning_rate=2e-3)), lab)
    assert seen == [(1.0, 1e-3), (0.0, 2e-3)]


def test_distillation_asks_the_dense_parent(lab, monkeypatch):
    seen, fit = [], training.fit

    def spy(model, data, recipe, **options):
        seen.append(options["teacher"])
        return fit(model, data, recipe, **options)

    cell = pruned(0.5, recipe=replace(RECIPE, distill_weight=0.5))
    plain, dense = artifact(pruned(0.5), lab), artifact(CONTROL, lab)
    monkeypatch.setattr(training, "fit", spy)
    made = artifact(cell, lab)
    assert made.meta["spec"]["parent"] == plain.meta["spec"]["parent"]
    assert all(torch.equal(t, dense.state[n]) for n, t in seen[0].state_dict().items())
    assert made.meta["digest"] != plain.meta["digest"]
    assert made.meta["kept"] == plain.meta["kept"] == PRUNABLE - pruned_count(PRUNABLE, 0.5)


def test_gradual_schedules_prune_at_even_distances(lab, monkeypatch):
    seen = []

    def spy(model, data, recipe, **options):
        before = options["before_step"]

        def note(step, steps):
            before(step, steps)
            seen.append(round(sparsity_of(masks_of(model)), 3))

        return fit(model, data, recipe, **{**options, "before_step": note})

    fit = training.fit
    monkeypatch.setattr(training, "fit", spy)
    artifact(pruned(0.6, "linear", seed=0, recipe=replace(RECIPE, fine_tune_epochs=3)), lab)
    # 33 steps (1,295 samples in batches of 128); three prunings spread over the first half of them.
    assert seen == [0.2] * 6 + [0.4] * 5 + [0.6] * 22


def test_without_fine_tuning_the_target_is_still_met(lab):
    cell = pruned(0.9, recipe=replace(RECIPE, fine_tune_epochs=0))
    made = artifact(cell, lab)
    assert sparsity_of(masks_of(model_of(cell, made, lab))) == pytest.approx(0.9, abs=1e-4)
    assert made.meta["loss"] is None
    assert 0 < made.meta["validation_accuracy"] < 1


def test_the_same_cell_made_twice_is_bit_for_bit_the_same(lab, tmp_path):
    cell = pruned(0.7, criterion="random")
    other = Lab(Store(tmp_path / "other"), lab.data_root)
    one, two = artifact(cell, lab), artifact(cell, other)
    assert other.trained == 2
    assert all(torch.equal(one.state[k], two.state[k]) for k in one.state)
    assert one.meta["validation_accuracy"] == two.meta["validation_accuracy"]


def test_seeds_differ_in_everything(lab):
    one, two = (artifact(replace(CONTROL, seed=s), lab).state for s in (0, 1))
    assert not torch.equal(one["fc1.weight"], two["fc1.weight"])
    masks = []
    for seed in (0, 1):
        cell = pruned(0.5, "one_shot", criterion="random", seed=seed)
        masks.append(masks_of(model_of(cell, artifact(cell, lab), lab))["fc1.weight"])
    assert not torch.equal(*masks)


def test_the_dense_model_learns(warm):
    assert warm.store.get(key_of(CONTROL)).meta["validation_accuracy"] > 0.5


DIVERGING = replace(RECIPE, name="wild", optimizer="sgd", learning_rate=1e25)


def test_divergence_is_a_status_kept_and_not_tried_again(lab):
    cell = pruned(0.5, recipe=DIVERGING)
    made = artifact(cell, lab)
    assert lab.trained == 2
    assert made.state is None
    assert made.meta["status"] == "diverged"
    assert "parent" in made.meta["reason"]
    parent = artifact(cell.control, lab)
    assert parent.meta["status"] == "diverged"
    assert "diverged in epoch" in parent.meta["reason"]
    again = Lab(Store(lab.store.root), lab.data_root)
    assert artifact(cell, again).meta == made.meta
    assert (again.trained, again.reused) == (0, 1)


def test_fine_tuning_may_diverge_by_itself(lab):
    recipe = replace(RECIPE, fine_tune_learning_rate=1e30)
    for schedule in ("agp", "one_shot"):  # between two prunings, and after the only one
        made = artifact(pruned(0.5, schedule, recipe=recipe), lab)
        assert made.meta["status"] == "diverged"
        assert "diverged" in made.meta["reason"]
        assert made.state is None
    assert artifact(CONTROL, lab).meta["status"] == "ok"


def test_collapse_is_on_record(lab):
    made = artifact(pruned(0.9999), lab)
    assert "layer collapse" in made.meta["collapse"]
    assert artifact(pruned(0.5, "one_shot"), lab).meta["collapse"] is None


def test_layers_that_a_granularity_leaves_dense_are_on_record(lab):
    made = artifact(pruned(0.75, granularity="n_m:n=4:m=16", scope="erk:last=dense"), lab)  # 64, 300 and 100 inputs
    assert "1.weight" not in made.meta["not_pruned"].partition(" stay dense")[0]
    assert made.meta["not_pruned"].count(".weight") == 2
    assert artifact(pruned(0.75, granularity="n_m:n=1:m=4"), lab).meta["not_pruned"] is None


def test_a_damaged_checkpoint_is_made_again(lab):
    cell = pruned(0.66)
    first = artifact(cell, lab)
    path = lab.store.path(first.key) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    second = artifact(cell, lab)
    assert lab.store.set_aside == 1
    assert all(torch.equal(first.state[k], second.state[k]) for k in first.state)


def test_a_store_that_can_not_be_written_is_told_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("trained for nothing"))
    with pytest.raises(StoreError):
        artifact(CONTROL, Lab(Store(tmp_path / "file"), tmp_path))


def test_progress_is_told(lab):
    told, said = [], []
    lab.tell = lambda cell, step, steps: told.append((cell.id, step, steps))
    lab.said = lambda cell, made: said.append((cell.id, made.meta["status"]))
    cell = pruned(0.123)
    artifact(cell, lab)
    assert told == [(cell.id, 11, 22), (cell.id, 22, 22)]
    assert said == [(cell.id, "ok")]


def test_a_criterion_that_needs_data_sees_normalised_training_samples(lab, registry_sandbox):
    seen = []

    @pb.criterion("curious", needs=("activations", "gradients"))
    def curious(layer):
        seen.append((layer.activations.shape, float(layer.grad.abs().sum())))
        return layer.weight.abs()

    made = artifact(pruned(0.5, "one_shot", criterion="curious"), lab)
    assert made.meta["status"] == "ok"
    assert seen[0][0] == (256, 64)
    assert all(total > 0 for _, total in seen)
    assert "criterion_code" in made.meta["spec"]


def test_keys_are_pinned():
    # These name checkpoints in stores that people keep. A change here means that every stored checkpoint is
    # trained again: raise pipeline.REVISION on purpose, say so in CHANGELOG.md, and only then renew the values.
    cell = Cell("mnist", "lenet5", "l1", "weight", "global", "agp", 0.9, 0, Recipe())
    assert (key_of(cell.control), key_of(cell)) == (
        "baaab7f1956a8701af0543cb4762a50a",
        "ef7ef37d43601d59c2076b96a8c221f9",
    )


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"model": "lenet300"}, {"dataset": "fashion_mnist"}, {"recipe": Recipe(epochs=3)}],
)
def test_what_makes_a_dense_checkpoint_is_in_its_key(changes):
    cell = Cell("mnist", "lenet5")
    assert key_of(replace(cell, **changes)) != key_of(cell)


@pytest.mark.parametrize(
    "changes",
    [
        {"criterion": "l2"},
        {"granularity": "filter"},
        {"scope": "layerwise"},
        {"schedule": "linear"},
        {"sparsity": 0.8},
        {"seed": 1},
        {"recipe": Recipe(fine_tune_epochs=1)},
        {"recipe": Recipe(epochs=3)},
    ],
)
def test_what_makes_a_pruned_checkpoint_is_in_its_key(changes):
    cell = Cell("mnist", "lenet5", "l1", "weight", "global", "agp", 0.9)
    assert key_of(replace(cell, **changes)) != key_of(cell)


def test_names_of_recipes_are_not_in_the_key():
    cell = Cell("mnist", "lenet5", "l1", "weight", "global", "agp", 0.9)
    assert key_of(replace(cell, recipe=Recipe(name="other"))) == key_of(cell)


def test_a_recipe_field_added_later_leaves_old_keys_alone():
    @dataclass(frozen=True)
    class Later(Recipe):
        mixup: float = 0.0

    cell = Cell("mnist", "lenet5", "l1", "weight", "global", "agp", 0.9)
    newer = replace(cell, recipe=Later())
    assert (key_of(newer), key_of(newer.control)) == (key_of(cell), key_of(cell.control))
    assert key_of(replace(cell, recipe=Later(mixup=0.1))) != key_of(cell)


def test_a_revision_makes_all_keys_new(monkeypatch):
    before = key_of(CONTROL), key_of(pruned())
    monkeypatch.setattr(pipeline, "REVISION", pipeline.REVISION + 1)
    assert key_of(CONTROL) != before[0]
    assert key_of(pruned()) != before[1]


def test_a_foreign_plugin_s_source_is_part_of_the_key(registry_sandbox):
    pb.criterion("foreign")(lambda layer: layer.weight.abs())
    cell = pruned(criterion="foreign")
    assert pruned_spec(cell)["criterion_code"]
    assert "criterion_code" not in pruned_spec(pruned())
    assert dense_spec(cell)["model_code"] is None


def test_the_same_name_with_other_data_is_another_checkpoint():
    cell = Cell("mnist", "lenet300", "l1", "weight", "global", "agp", 0.9)
    keys = {key_of(c, content) for c in (cell, cell.control) for content in (None, "aaaa", "bbbb")}
    assert len(keys) == 6
