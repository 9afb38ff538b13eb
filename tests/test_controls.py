"""Twins: which cells get them, what they copy, and what the strings that say so may hold."""

import re

import pytest

from prunebench import profiles
from prunebench.cell import Case, Cell
from prunebench.controls import copied, original, twins
from prunebench.errors import UsageError
from prunebench.pipeline import key_of
from prunebench.registry import check

CELL = Cell("digits", "lenet300", "l2", "weight", "global", "agp", 0.9)


def test_a_cell_s_twins_are_the_two_baselines_with_its_proportions():
    found = twins(CELL)
    assert [c.criterion for c in found] == ["random", "l1"]
    assert {c.scope for c in found} == {"like:criterion=l2:scope=global"}
    assert all(original(c) == CELL for c in found)


@pytest.mark.parametrize(
    ("criterion", "expected"), [("l1", ["random"]), ("random", ["l1"]), ("linf", ["random", "l1"])]
)
def test_a_baseline_is_not_its_own_control(criterion, expected):
    assert [
        c.criterion for c in twins(Cell("digits", "lenet300", criterion, "weight", "global", "agp", 0.9))
    ] == expected


def test_neither_the_unpruned_nor_a_twin_has_twins():
    assert twins(CELL.control) == []
    assert [twins(c) for c in twins(CELL)] == [[], []]
    assert original(CELL) is None
    assert original(CELL.control) is None


def test_parameters_of_the_original_survive():
    cell = Cell("digits", "lenet300", "lp:p=3", "weight", "layerwise:first=dense:last=0.5", "agp", 0.9)
    for twin in twins(cell):
        assert original(twin) == cell
        assert check("scopes", twin.scope) == twin.scope


def test_ids_are_readable_unique_and_plain():
    cell = Cell("digits", "lenet300", "lp:p=3", "weight", "global:last=dense", "agp", 0.9)
    names = [Case(c, "csr", 64).id for c in (cell, *twins(cell), CELL, *twins(CELL))]
    assert len(set(names)) == len(names)
    assert names[4] == "lenet300-digits-random-weight-like_criterionl2_scopeglobal-agp-s900-seed0-csr-b64"
    assert all(re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", name) for name in names)


def test_a_twin_s_key_holds_its_original_s():
    random, l1 = twins(CELL)
    assert len({key_of(c) for c in (CELL, random, l1)}) == 3
    other = Cell("digits", "lenet300", "linf", "weight", "global", "agp", 0.9)
    assert key_of(twins(other)[0]) != key_of(random)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("like:criterion=l3", "unknown criterion 'l3'"),
        ("like:scope=everywhere", "unknown scope 'everywhere'"),
        ("like:criterion=lp/p=-1", "lp:p=-1"),
        ("like:scope=like", "another"),
        ("like:criteria=l1", "criteria"),
        ("like:criterion=3", "3"),
    ],
)
def test_what_can_t_be_copied_is_refused_when_the_string_is_read(text, named):
    with pytest.raises(UsageError, match=named) as error:
        check("scopes", text)
    assert "\n" not in str(error.value)


def test_a_layer_s_own_sparsity_belongs_to_the_original():
    for text in ("like:scope=global/first=dense", "like:first=dense"):
        assert copied(text) == ("l1", "global:first=dense")
    with pytest.raises(UsageError, match="'first' twice"):
        copied("like:scope=global/first=dense:first=dense")


def test_a_plugin_that_is_gone_is_still_named():
    assert copied("like:criterion=once_installed") == ("once_installed", "global")


def plan(**given):
    small = {"models": "lenet300", "criteria": "l1,l2", "sparsities": "0.8,0.9", "backends": "dense"}
    return profiles.plan("smoke", {**small, **given})


def test_controls_stand_behind_their_cells():
    cells = plan(controls=True).cells
    assert [c.criterion for c in cells] == ["none", *["l1", "random"] * 2, *["l2", "random", "l1"] * 2]
    assert [original(c) for c in cells[5:8]] == [None, cells[5], cells[5]]
    assert plan().cells == tuple(c for c in cells if original(c) is None)
    assert len(set(cells)) == len(cells)


def test_controls_are_on_or_off():
    assert plan(controls=False).cells == plan().cells
    with pytest.raises(UsageError, match="controls 'yes'"):
        plan(controls="yes")
