"""Cells, recipes and cases: ids, marks, the grid, and identity."""

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.cell import Case, Cell, Recipe, check_sparsity, derive_seed, digest, grid, per_mille
from prunebench.errors import UsageError

CELL = Cell("mnist", "lenet5", "l1", "weight", "global", "agp", 0.9, 0)


def test_ids_read_as_the_contract_says():
    assert CELL.id == "lenet5-mnist-l1-weight-global-agp-s900-seed0"
    assert Case(CELL, "csr", 64).id == "lenet5-mnist-l1-weight-global-agp-s900-seed0-csr-b64"
    assert CELL.control.id == "lenet5-mnist-none-none-none-none-s000-seed0"
    assert replace(CELL, criterion="lp:p=3").id == "lenet5-mnist-lp_p3-weight-global-agp-s900-seed0"


def test_ids_hold_nothing_that_k_can_not_take():
    cell = replace(CELL, dataset="imagefolder:/my photos/a+b.tar:size=32", criterion="lp:p=2.5", sparsity=0.9167)
    assert re.fullmatch(r"[\w-]+", Case(cell, "dense:layout=channels_last", 1).id)


@pytest.mark.parametrize(
    ("sparsity", "text"),
    [
        (0, "000"),
        (0.0, "000"),
        (0.9, "900"),
        (0.5, "500"),
        (0.05, "050"),
        (0.001, "001"),
        (0.9167, "916_7"),
        (0.1 + 0.2, "300_00000000000004"),
        (0.98, "980"),
        (0.0005, "000_5"),
    ],
)
def test_per_mille(sparsity, text):
    assert per_mille(sparsity) == text


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_different_sparsities_have_different_ids(a, b):
    assert (per_mille(a) == per_mille(b)) == (a == b)


def test_marks_select_by_plain_values():
    marks = Case(CELL, "csr", 64).marks()
    assert marks["criterion"] == "l1"
    assert marks["sparsity"] == 900
    assert marks["batch"] == 64
    assert all(isinstance(value, (int, str, bool)) for value in marks.values())


def spanned(**changes):
    axes = {
        "datasets": ["digits", "mnist"],
        "models": ["lenet300", "lenet5"],
        "criteria": ["l1", "random"],
        "granularities": ["weight"],
        "scopes": ["global"],
        "schedules": ["agp", "linear"],
        "sparsities": [0.5, 0.9],
        "seeds": [0, 1],
        "recipe": lambda model, dataset: Recipe(name=f"{model}-{dataset}"),
    }
    return list(grid(**{**axes, **changes}))


def test_the_grid_is_the_product_with_one_control_per_dense_parent():
    cells = spanned()
    assert len(cells) == 2 * 2 * 2 * (1 + 2 * 2 * 2)
    assert len({c.id for c in cells}) == len(cells)
    controls = [c for c in cells if c.is_control]
    assert len(controls) == 8
    assert {c.control for c in cells} == set(controls)
    assert all(c.sparsity == 0 and c.id.count("none") == 4 for c in controls)
    assert all(c.recipe.name == f"{c.model}-{c.dataset}" for c in cells)


def test_a_control_comes_before_what_is_made_from_it():
    seen = set()
    for cell in spanned():
        seen.add(cell)
        assert cell.control in seen


def test_sparsity_zero_adds_nothing_to_the_control():
    cells = spanned(sparsities=[0.0, 0.9])
    assert sum(c.sparsity == 0 for c in cells) == 8
    assert spanned(sparsities=[0.0]) == [c for c in cells if c.is_control]


def test_doubled_values_are_merged():
    assert spanned(seeds=[0, 1, 0], criteria=["l1", "random", "l1"]) == spanned()


def test_a_cell_survives_its_dict():
    cell = replace(CELL, recipe=Recipe(name="x", optimizer="sgd", decay="step"))
    assert Cell.from_dict(cell.as_dict()) == cell


def test_a_field_of_a_newer_version_is_read_over():
    newer = CELL.as_dict()
    newer["recipe"]["mixup"] = 0.1
    newer["future"] = 1
    assert Cell.from_dict(newer) == CELL


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"prune_rounds": 0}, "prune_rounds"),
        ({"fine_tune_epochs": -1}, "fine_tune_epochs"),
        ({"optimizer": "lbfgs"}, "adam, sgd"),
        ({"decay": "exponential"}, "constant, cosine, step"),
        ({"augment": "mixup"}, "none, crop_flip"),
    ],
)
def test_a_recipe_that_can_not_be_is_refused(changes, named):
    with pytest.raises(UsageError, match=named) as error:
        Recipe(name="mine", **changes)
    assert "'mine'" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_fine_tuning_is_allowed():
    assert Recipe(fine_tune_epochs=0).fine_tune_epochs == 0


def test_the_dense_identity_holds_no_fine_tuning_and_no_name():
    base = Recipe()
    assert replace(base, name="other", fine_tune_epochs=9, prune_rounds=2).training_fields() == base.training_fields()
    for changes in ({"epochs": 3}, {"learning_rate": 0.5}, {"optimizer": "sgd"}, {"weight_decay": 1e-4}):
        assert replace(base, **changes).training_fields() != base.training_fields()


def test_the_fine_tuning_identity_holds_no_dense_training():
    base = Recipe()
    assert replace(base, name="other", epochs=99, learning_rate=9.0).fine_tuning_fields() == base.fine_tuning_fields()
    for changes in ({"fine_tune_epochs": 3}, {"prune_rounds": 2}, {"optimizer": "sgd"}, {"batch_size": 7}):
        assert replace(base, **changes).fine_tuning_fields() != base.fine_tuning_fields()


def test_a_field_added_later_leaves_identities_alone_at_its_default():
    @dataclass(frozen=True)
    class Later(Recipe):
        mixup: float = 0.0

    assert Later().training_fields() == Recipe().training_fields()
    assert Later().fine_tuning_fields() == Recipe().fine_tuning_fields()
    assert Later(mixup=0.1).training_fields() == {**Recipe().training_fields(), "mixup": 0.1}


@pytest.mark.parametrize("value", [-0.1, 1.0, 1, 1.5, float("nan"), float("inf"), "x", None, [0.5], "1.5"])
def test_a_sparsity_outside_zero_to_one_is_refused(value):
    with pytest.raises(UsageError, match="sparsity") as error:
        check_sparsity(value)
    assert "0.9" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "number"), [(0, 0.0), (0.9, 0.9), ("0.5", 0.5), (0.999999, 0.999999)])
def test_a_sparsity_inside_is_taken(value, number):
    assert check_sparsity(value) == number


def test_digests_are_canonical():
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
    assert digest({"a": 1, "b": None}) == digest({"a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert re.fullmatch(r"[0-9a-f]{32}", digest({}))
    # SHA-256 of {"a":1}: sorted JSON without spaces, cut to 32 hex digits.
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"
    with pytest.raises(ValueError):
        digest({"a": float("nan")})


def test_seeds_for_different_purposes_never_meet():
    seeds = [derive_seed(s, p) for s in range(20) for p in ("order", "masks", "weights", "training")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(0, "order") == derive_seed(0, "order")
    assert derive_seed(0, "a", "b") != derive_seed(0, "b", "a")
