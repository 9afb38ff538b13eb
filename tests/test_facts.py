"""Schema 1: every name the contract lists, missing values null, nothing that JSON can't say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench.cell import Case, Cell
from prunebench.errors import UsageError
from prunebench.facts import FIELDS, SAMPLES, case_of, facts_of, repetition_of

CASE = Case(Cell("digits", "lenet5", "l1", "weight", "global", "agp", 0.9, 3), "csr", 64)
CONTRACT = [
    "schema",
    "cell",
    "backend",
    "batch_size",
    "threads",
    "status",
    "accuracy",
    "relative_error",
    "nonzeros",
    "prunable",
    "parameters",
    "macs",
    "macs_dense",
    "disk_bytes",
    "dense_disk_bytes",
    "resident_bytes",
    "speedup",
    "speedup_low",
    "speedup_high",
    "baseline",
    "verdict",
]


def test_all_names_are_there_and_what_is_missing_is_null():
    facts = facts_of(CASE, 2)
    assert set(CONTRACT) <= set(facts)
    assert facts["schema"] == 1
    assert facts["status"] == "ok"
    assert all(facts[name] is None for name in FIELDS)
    assert {"dataset", "model", "criterion", "granularity", "scope", "schedule", "sparsity", "seed", "recipe"} <= set(
        facts["cell"]
    )


def test_values_that_json_lacks_become_null():
    facts = facts_of(CASE, 1, accuracy=float("nan"), speedup=float("inf"), macs=7)
    assert facts["accuracy"] is None
    assert facts["speedup"] is None
    assert facts["macs"] == 7
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@pytest.mark.parametrize("values", [{"acuracy": 1.0}, {"status": "fine"}])
def test_what_the_schema_lacks_is_a_programming_error(values):
    with pytest.raises(ValueError, match="schema 1"):
        facts_of(CASE, 1, **values)


def test_the_case_is_read_back():
    assert case_of(json.loads(json.dumps(facts_of(CASE, 1)))) == CASE


@pytest.mark.parametrize("schema", [0, 2, None, "1"])
def test_another_schema_is_refused_with_the_remedy(schema):
    with pytest.raises(UsageError, match="run the benchmark again"):
        case_of({**facts_of(CASE, 1), "schema": schema})


@pytest.mark.parametrize("missing", ["cell", "backend", "batch_size"])
def test_incomplete_facts_are_refused(missing):
    facts = facts_of(CASE, 1)
    del facts[missing]
    with pytest.raises(UsageError, match=missing):
        case_of(facts)


def test_repetitions_differ_by_seed_only():
    assert repetition_of(CASE.cell) == repetition_of(replace(CASE.cell, seed=9))
    assert repetition_of(CASE.cell) != repetition_of(replace(CASE.cell, sparsity=0.8))


def test_every_fact_is_documented():
    text = (Path(__file__).parent.parent / "docs" / "saved-runs.md").read_text()
    for name in (*FIELDS, "schema", "cell", "backend", "batch_size", "threads", "status", "reason"):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize(
    "changes",
    [{"accuracy": "abc"}, {"accuracy": 7.0}, {"speedup": -5}, {"threads": "x"}, {"batch_size": 0}, {"status": "fine"}],
)
def test_facts_that_can_not_be_are_refused(changes):
    with pytest.raises(UsageError, match="can't be") as error:
        case_of({**facts_of(CASE, 1), **changes})
    assert next(iter(changes)) in str(error.value)


@pytest.mark.parametrize("value", [1.0, "1", [0], [-1.0], ["1"], [None], [True], [float("inf")], {}])
def test_samples_are_lists_of_times_over_times(value):
    good = facts_of(CASE, 1)
    assert case_of({**good, "ratios": [1.0, 2], "control_ratios": None}) == CASE
    assert case_of({k: v for k, v in good.items() if k not in SAMPLES}) == CASE
    with pytest.raises(UsageError, match="ratios is "):
        case_of({**good, "ratios": value})
