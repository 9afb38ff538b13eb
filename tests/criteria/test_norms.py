"""Norms of filters by hand, on a net where L1, L2, L3 and L∞ each find another filter the smallest."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.criteria import norms  # at once: what a sandboxed test loads first is forgotten after it

# Smallest by L3, by L1, by L2 and by L∞, in this order.
FILTERS = [[3.2] * 4 + [0.0] * 4, [6.0] + [0.0] * 7, [-4.2, 4.2] + [0.0] * 6, [2.9, -2.9] * 4]
NORMS = {
    "l1": [12.8, 6.0, 8.4, 23.2],
    "l2": [6.4, 6.0, 4.2 * math.sqrt(2), 2.9 * math.sqrt(8)],
    "lp:p=3": [3.2 * 4 ** (1 / 3), 6.0, 4.2 * 2 ** (1 / 3), 5.8],
    "linf": [3.2, 6.0, 4.2, 2.9],
}
SMALLEST = {"l1": 1, "l2": 2, "lp:p=3": 0, "linf": 3}


def net():
    model = nn.Sequential(nn.Conv2d(1, 4, (1, 8)), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    model[0].weight.data = torch.tensor(FILTERS).view(4, 1, 1, 8)
    return model


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_a_norm_is_numpy_s(p):
    found = norms.norm(torch.tensor(FILTERS), p).tolist()
    assert found == pytest.approx([np.linalg.norm(row, p) for row in FILTERS], rel=1e-6)


@pytest.mark.parametrize("criterion", NORMS)
def test_a_filter_s_norm(criterion):
    found = criteria.reducer(criterion)(torch.tensor(FILTERS).abs())
    assert found.tolist() == pytest.approx(NORMS[criterion], rel=1e-6)


@pytest.mark.parametrize("criterion", NORMS)
def test_the_smallest_filter_goes(criterion):
    masks = pb.prune(net(), 0.25, criterion, granularity="filter")
    kept = masks["0.weight"].flatten(1).any(1)
    assert kept.tolist() == [i != SMALLEST[criterion] for i in range(4)]
    assert torch.equal(masks["0.weight"], kept.view(-1, 1, 1, 1).expand(4, 1, 1, 8))
    assert masks["3.weight"].all()


def test_lp_without_a_parameter_is_l3():
    assert criteria.reducer("lp")(torch.tensor([[3.0, 4.0]])).item() == pytest.approx(91 ** (1 / 3))


@pytest.mark.parametrize(("criterion", "p"), [("lp:p=1", 1), ("lp:p=2", 2), ("lp:p=0.5", 0.5)])
def test_lp_takes_any_positive_p(criterion, p):
    found = criteria.reducer(criterion)(torch.tensor([[3.0, 4.0]])).item()
    assert found == pytest.approx((3**p + 4**p) ** (1 / p), rel=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "lp"])
def test_a_single_weight_s_score_is_its_magnitude(criterion):
    model = nn.Linear(3, 1)
    model.weight.data = torch.tensor([[-3.0, 0.0, 2.0]])
    assert criteria.score(criterion, model, {"weight": model})["weight"].tolist() == [[3.0, 0.0, 2.0]]
