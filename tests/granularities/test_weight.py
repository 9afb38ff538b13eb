"""Weight granularity: a unit per weight, in memory order, earlier masks kept."""

import torch
from torch import nn

from prunebench.granularities import Scored, unit_sets


def test_units_are_weights_in_memory_order():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Linear(3, 2))
    scores = {"0.weight": torch.arange(8.0).view(2, 1, 2, 2), "1.weight": torch.arange(6.0).view(2, 3)}
    keep = {"0.weight": torch.ones(2, 1, 2, 2).bool(), "1.weight": torch.tensor([[False, True, True]] * 2)}
    one, two = unit_sets("weight", Scored(model, {}, scores, keep, lambda s: s.sum(-1)))
    assert (one.names, one.units, one.cost) == (("0.weight",), 8, 1)
    assert one.scores.tolist() == list(range(8))
    assert two.scores.tolist() == [-float("inf"), 1, 2, -float("inf"), 4, 5]
    mask = one.expand(torch.arange(8) % 3 == 0)["0.weight"]
    assert mask.tolist() == [[[[True, False], [False, True]]], [[[False, False], [True, False]]]]
