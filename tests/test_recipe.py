"""Recipes: values that can't be, what an identity holds of the later fields, and modes that exclude each other."""

from dataclasses import replace

import pytest

from prunebench.cell import Cell
from prunebench.errors import UsageError
from prunebench.recipe import Recipe

SPARSE = Recipe(name="mine", regrow="gradient")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs is -1.*at least 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0.*\[0, 1\)"),
        ({"distill_weight": 1.5}, r"distill_weight is 1.5.*\[0, 1\]"),
        ({"distill_temperature": 0}, "distill_temperature is 0.*above 0"),
        ({"regrow_fraction": 2}, "regrow_fraction"),
        ({"regrow_until": -0.1}, "regrow_until"),
        ({"regrow_every": 0}, "regrow_every is 0.*at least 1"),
        ({"precision": "int8"}, "'int8'.*float32, bf16, fp16"),
        ({"rewind": "all"}, "'all'.*none, weights, learning_rate"),
        ({"regrow": "rigl"}, "'rigl'.*none, static, gradient, random"),
        ({"rewind": "weights", "regrow": "random"}, "combined"),
        ({"rewind_epoch": 10, "epochs": 10}, "rewind_epoch is 10.*less than epochs=10"),
        ({"nesterov": True}, "optimizer sgd"),
        ({"nesterov": True, "optimizer": "sgd", "momentum": 0.0}, "momentum above 0"),
        ({"nesterov": 1}, "true or false"),
        ({"epochs": "three"}, "epochs is 'three'.*whole number"),
        ({"epochs": 2.5}, "whole number"),
        ({"learning_rate": float("nan")}, "finite number"),
        ({"learning_rate": "fast"}, "finite number"),
        ({"decay": 3}, "decay is 3.*a word"),
    ],
)
def test_values_that_can_not_be(changes, named):
    with pytest.raises(UsageError, match=named) as error:
        Recipe(name="mine", **changes)
    assert "'mine'" in str(error.value)
    assert "\n" not in str(error.value)


def test_later_fields_are_hashed_only_where_they_differ():
    later = {"nesterov", "warmup_epochs", "label_smoothing", "precision", "deterministic", "compiled"}
    assert not (later | {"rewind", "regrow", "distill_weight"}) & set(Recipe().training_fields())
    assert not (later | {"rewind", "regrow", "distill_weight"}) & set(Recipe().fine_tuning_fields())
    assert Recipe(warmup_epochs=1).training_fields()["warmup_epochs"] == 1.0
    assert Recipe(warmup_epochs=1).training_fields() == Recipe(warmup_epochs=1.0).training_fields()
    assert isinstance(Recipe(warmup_epochs=1).warmup_epochs, float)


@pytest.mark.parametrize(
    "changes",
    [
        {"distill_weight": 0.5},
        {"rewind": "weights", "rewind_epoch": 1},
        {"regrow": "random", "regrow_every": 5},
    ],
)
def test_what_comes_after_dense_training_is_not_in_its_identity(changes):
    changed = Recipe(**changes)
    assert changed.training_fields() == Recipe().training_fields()
    assert changed.fine_tuning_fields() != Recipe().fine_tuning_fields()


@pytest.mark.parametrize(("axis", "value"), [("granularity", "filter"), ("schedule", "agp")])
def test_sparse_training_takes_single_weights_at_once_only(axis, value):
    cell = Cell("digits", "lenet300", "random", "weight", "global", "one_shot", 0.9, recipe=SPARSE)
    with pytest.raises(UsageError, match=f"'mine'.*{axis} '{value}'"):
        replace(cell, **{axis: value})
    assert cell.control.recipe is SPARSE
