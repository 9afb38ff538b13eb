"""Profiles: the grid they span, its ids and order, overrides, and values that can't be."""

import subprocess
import sys

import pytest

from prunebench import profiles
from prunebench.errors import UsageError
from prunebench.profiles import plan, recipe


@pytest.mark.parametrize("name", ["smoke", "quick", "paper"])
def test_every_profile_is_a_grid_of_distinct_ids(name):
    found = plan(name)
    ids = [case.id for case in found.cases()]
    assert len(ids) == len(set(ids)) == len(found.cells) * len(found.backends) * len(found.batch_sizes)
    assert plan(name) == found
    assert {"dense", "masked", "scipy_csr", "csr"} <= set(found.backends)


def test_the_default_is_quick():
    assert plan() == plan("quick")


@pytest.mark.parametrize("name", ["smoke", "quick", "paper"])
def test_the_control_is_there_exactly_once_per_dense_parent(name):
    cells = plan(name).cells
    controls = [c for c in cells if c.is_control]
    parents = {(c.dataset, c.model, c.seed, c.recipe) for c in cells}
    assert sorted((c.dataset, c.model, c.seed) for c in controls) == sorted(p[:3] for p in parents)


def test_the_smoke_grid_word_by_word():
    ids = [case.id for case in plan("smoke", {"backends": "dense,csr"}).cases()]
    pruned = "lenet300-digits-l1-weight-global-one_shot-s900-seed0"
    control = "lenet300-digits-none-none-none-none-s000-seed0"
    assert ids == [f"{cell}-{backend}-b64" for cell in (control, pruned) for backend in ("dense", "csr")]


def test_lists_override_and_doubles_are_merged():
    found = plan(
        "smoke",
        {
            "sparsities": "0.5, 0.9,0.5",
            "criteria": "lp:p=3,lp:p=3.0",
            "seeds": "1,2,1",
            "backends": "csr,csr",
            "batch_sizes": "1,64,1",
        },
    )
    assert [c.id for c in found.cells] == [
        f"lenet300-digits-{axes}-seed{seed}"
        for seed in (1, 2)
        for axes in (
            "none-none-none-none-s000",
            "lp_p3-weight-global-one_shot-s500",
            "lp_p3-weight-global-one_shot-s900",
        )
    ]
    assert (found.backends, found.batch_sizes) == (("csr",), (1, 64))


def test_an_override_of_none_is_none():
    assert plan("smoke", {"seeds": None}) == plan("smoke")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"criteria": "l9"}, ["'l9'", "l1"]),
        ({"models": "lenet9"}, ["'lenet9'", "lenet300"]),
        ({"datasets": "digit"}, ["'digit'", "digits"]),
        ({"backends": "cuda"}, ["'cuda'", "csr"]),
        ({"scopes": "local"}, ["'local'", "layerwise"]),
        ({"schedules": "later"}, ["'later'", "agp"]),
        ({"granularities": "pixel"}, ["'pixel'", "filter"]),
        ({"criteria": ""}, ["--criteria", "empty"]),
        ({"criteria": "l1,,l2"}, ["--criteria", "empty item"]),
        ({"batch_sizes": ""}, ["--batch-sizes", "empty"]),
        ({"sparsities": "0.9,1"}, ["1", "[0, 1)"]),
        ({"sparsities": "nine"}, ["'nine'"]),
        ({"sparsities": "nan"}, ["nan"]),
        ({"batch_sizes": "0"}, ["batch size", "at least 1"]),
        ({"batch_sizes": "1.5"}, ["batch size", "1.5"]),
        ({"seeds": "-1"}, ["seed", "at least 0"]),
        ({"epochs": "0"}, ["epochs", "at least 1"]),
        ({"fine_tune_epochs": "-1"}, ["fine-tune epochs"]),
        ({"recipe": "soup"}, ["'soup'", "lenet_digits"]),
        ({"criteria": "l1:x=1"}, ["'x'"]),
        ({"criteria": "l1:2"}, ["'2'"]),
    ],
)
def test_what_can_not_be_is_one_line(overrides, words):
    with pytest.raises(UsageError) as error:
        plan("smoke", overrides)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(UsageError, match=r"'huge'.*paper, quick, smoke"):
        plan("huge")


@pytest.mark.parametrize(
    ("model", "dataset", "name"),
    [
        ("lenet5", "digits", "lenet_digits"),
        ("lenet300", "digits:size=16", "lenet_digits"),
        ("resnet20", "digits", "resnet_digits"),
        ("vit_tiny_cifar", "digits", "vit_digits"),
        ("vit_b_16", "cifar10", "vit"),
        ("lenet5", "mnist", "lenet"),
        ("resnet20", "cifar10", "resnet_short"),
        ("vgg11", "imagefolder:photos", "resnet_short"),
    ],
)
def test_a_recipe_follows_from_model_and_dataset(model, dataset, name):
    assert recipe(model, dataset).name == name


@pytest.mark.parametrize("name", profiles.recipe_names())
def test_every_recipe_is_valid_and_can_be_named(name):
    assert recipe("lenet5", "mnist", name).name == name


def test_the_full_resnet_recipe_is_the_paper_s():
    full = recipe("resnet20", "cifar10", "resnet_full")
    assert (full.optimizer, full.learning_rate, full.momentum, full.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert (full.batch_size, full.epochs, full.decay, full.augment) == (128, 160, "step", "crop_flip")


def test_other_lengths_give_another_name():
    usual = recipe("lenet5", "mnist")
    changed = recipe("lenet5", "mnist", epochs=3, fine_tune_epochs=1)
    assert (changed.name, changed.epochs, changed.fine_tune_epochs) == ("lenet_e3_f1", 3, 1)
    assert recipe("lenet5", "mnist", epochs=usual.epochs, fine_tune_epochs=None) == usual
    assert recipe("lenet5", "mnist", fine_tune_epochs=0).name == "lenet_f0"


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("lenet:rewind=weights:rewind_epoch=1", "lenet_rewindweights_rewind_epoch1", ("weights", 1)),
        (
            "default:rewind_epoch=2:rewind=learning_rate",
            "lenet_rewindlearning_rate_rewind_epoch2",
            ("learning_rate", 2),
        ),
        ("lenet:rewind=none", "lenet", ("none", 0)),
        ("default", "lenet", ("none", 0)),
    ],
)
def test_a_recipe_s_values_can_be_given_with_its_name(text, name, values):
    chosen = recipe("lenet5", "mnist", text)
    assert (chosen.name, (chosen.rewind, chosen.rewind_epoch)) == (name, values)
    assert recipe("lenet5", "mnist", text, epochs=7).name == f"{name}_e7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lenet:rewnd=weights", ["'rewnd'", "rewind"]),
        ("lenet:name=x", ["'name'"]),
        ("lenet:epochs=many", ["epochs", "'many'", "whole number"]),
        ("lenet:warmup_epochs=-1", ["warmup_epochs", "at least 0"]),
        ("lenet:3", ["'3'", ":key=value"]),
        ("soup", ["'soup'", "default", "lenet"]),
    ],
)
def test_a_recipe_s_values_that_can_not_be_are_one_line(text, words):
    with pytest.raises(UsageError) as error:
        plan("smoke", {"recipe": text})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_lengths_reach_every_cell():
    cells = plan("smoke", {"epochs": "7", "fine_tune_epochs": "0"}).cells
    assert {(c.recipe.epochs, c.recipe.fine_tune_epochs) for c in cells} == {(7, 0)}


def test_planning_imports_no_torch():
    lists = {
        "granularities": "weight,filter,block:rows=16,n_m:n=1:m=4",
        "scopes": "global:first=dense,layerwise,erk:last=0.5,lamp:power=1",
        "schedules": "agp,polynomial:power=2,geometric,cosine",
        "sparsities": "0.5,0.75",
    }
    code = (
        "import sys; from prunebench.profiles import plan; "
        f"print(len(plan('smoke', {lists}).cells), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    count, imported = done.stdout.split()
    assert int(count) == 1 + 4 * 4 * (3 * 2 + 1)  # n_m takes part at 0.75 only
    assert imported == "False"
