"""Units: the best of a set is out of reach, earlier masks stay, a set never loses all."""

import torch

from prunebench.units import UnitSet, forced, protected, select


def unit_set(name, scores, cost=1):
    return UnitSet((name,), torch.tensor(scores), cost, lambda keep: {name: keep})


def test_sizes():
    one = unit_set("a", [1.0, 2.0, 3.0], cost=4)
    assert (one.units, one.weights) == (3, 12)


def test_the_last_of_the_best_is_protected():
    scores = torch.tensor([3.0, 1.0, 3.0, 2.0])
    assert protected(scores).tolist() == [3.0, 1.0, float("inf"), 2.0]
    assert scores.tolist() == [3.0, 1.0, 3.0, 2.0]


def test_each_set_loses_its_lowest():
    masks = select([unit_set("a", [3.0, 1.0, 2.0]), unit_set("b", [0.0, 0.0])], [2, 1])
    assert masks["a"].tolist() == [True, False, False]
    assert masks["b"].tolist() == [False, True]


def test_a_set_keeps_one_unit_whatever_the_count():
    assert select([unit_set("a", [3.0, 1.0, 2.0])], [3])["a"].tolist() == [True, False, False]


def test_what_was_pruned_ranks_below_everything():
    scores = torch.tensor([5.0, -7.0, 1.0], dtype=torch.float64)
    ranked = forced(scores, torch.tensor([False, True, True]))
    assert ranked.tolist() == [-float("inf"), -7.0, 1.0]
    assert ranked.dtype == torch.float32
    assert forced(scores, None).tolist() == [5.0, -7.0, 1.0]
