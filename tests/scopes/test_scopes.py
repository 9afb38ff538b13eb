"""Scopes on unit sets made by hand: exact totals, whole units, ties, the last unit of a set."""

import pytest
import torch

import prunebench as pb
from prunebench.masks import LayerCollapseWarning
from prunebench.scopes import share_out
from prunebench.units import UnitSet


def sets(*scores, costs=None):
    costs = costs or [1] * len(scores)
    return [
        UnitSet((f"l{i}.weight",), torch.tensor(s, dtype=torch.float32), c, lambda keep: {})
        for i, (s, c) in enumerate(zip(scores, costs, strict=True))
    ]


@pytest.mark.parametrize(
    ("sparsity", "counts"), [(0.0, [0, 0]), (0.1, [1, 0]), (0.3, [2, 1]), (0.5, [2, 3]), (0.7, [3, 4]), (0.84, [3, 5])]
)
def test_global_ranks_all_together(sparsity, counts):
    assert share_out("global", sets([1, 2, 6, 20], [3, 4, 5, 7, 8, 30]), sparsity) == counts


@pytest.mark.parametrize(
    ("sparsity", "counts"), [(0.0, [0, 0]), (0.1, [0, 1]), (0.3, [1, 2]), (0.5, [2, 3]), (0.7, [3, 4])]
)
def test_layerwise_shares_alike(sparsity, counts):
    assert share_out("layerwise", sets([1, 2, 6, 20], [3, 4, 5, 7, 8, 30]), sparsity) == counts


def test_global_ties_go_to_the_earlier_set():
    assert share_out("global", sets([1, 1, 1], [1, 1, 1]), 0.34) == [2, 0]


def test_global_spares_the_best_and_takes_the_next():
    with pytest.warns(LayerCollapseWarning, match=r"l0\.weight"):
        assert share_out("global", sets([1, 2], [3, 4, 5, 6]), 0.5) == [1, 2]


def test_layerwise_keeps_one_and_says_so():
    with pytest.warns(LayerCollapseWarning, match=r"l0\.weight") as caught:
        assert share_out("layerwise", sets([1, 2], list(range(100))), 0.9) == [1, 90]
    assert "l1.weight" not in str(caught[0].message)


def test_units_of_one_cost_are_counted_in_weights():
    # 6 units of 10 weights, half of 60 is 3 units.
    assert share_out("global", sets([1, 5, 6], [2, 3, 4], costs=[10, 10]), 0.5) == [1, 2]


@pytest.mark.parametrize(
    ("sparsity", "counts"),
    [
        (0.0, [0, 0]),
        (0.20, [1, 0]),  # 11 of 54 asked; after unit 1: 10, after unit 2: 18
        (0.30, [1, 1]),  # 16 asked; 10 or 18: 18 is nearer
        (0.48, [2, 1]),  # 26 asked; 18 or 28: 28 is nearer
    ],
)
def test_units_of_different_costs_come_nearest_to_the_total(sparsity, counts):
    assert share_out("global", sets([1, 3, 5], [2, 4, 6], costs=[10, 8]), sparsity) == counts


def test_global_at_different_costs_spares_the_best_of_each():
    with pytest.warns(LayerCollapseWarning):
        counts = share_out("global", sets([1, 2], [3, 4, 5, 6], costs=[1, 10]), 0.5)
    assert counts == [1, 2]


def test_a_scope_that_forgets_what_is_gone_gives_nothing_back(registry_sandbox):
    pb.scope("forgetful")(lambda sets, sparsity: [1 for _ in sets])
    gone = sets([-float("inf")] * 3 + [1.0, 2.0], [1.0, 2.0])
    assert share_out("forgetful", gone, 0.5) == [3, 1]
