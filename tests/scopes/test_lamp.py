"""LAMP against a loop over the paper's formula, and how it carries over to other scores."""

import math

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.masks import prunable_modules
from prunebench.scopes.lamp import lamp_scores


def loop(scores, power=2):
    """x_u^p over the sum of x_v^p of all v that come no earlier in ascending order, ties by position."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    found = [0.0] * len(scores)
    for place, u in enumerate(order):
        found[u] = scores[u] ** power / sum(scores[v] ** power for v in order[place:])
    return found


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_scores_are_those_of_a_loop(power):
    scores = (torch.randperm(60) + 1.0) / 7
    assert lamp_scores(scores, power).tolist() == pytest.approx(loop(scores.tolist(), power), rel=1e-9)


def test_by_hand():
    # 1/(1+4+4), 4/(4+4), 4/4: of equals the later one counts as the larger.
    assert lamp_scores(torch.tensor([2.0, 1.0, 2.0])).tolist() == pytest.approx([4 / 8, 1 / 9, 1.0])


def test_what_is_gone_counts_for_nothing():
    found = lamp_scores(torch.tensor([-math.inf, 3.0, -math.inf, 1.0, 2.0])).tolist()
    assert found == [-math.inf, 1.0, -math.inf, pytest.approx(1 / 14), pytest.approx(4 / 13)]


def test_negative_scores_keep_their_order():
    assert lamp_scores(torch.tensor([1.0, -2.0, 0.0])).tolist() == pytest.approx([1.0, 0.0, 4 / 13])


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_ties_zeros_and_extremes_stay_finite(value):
    found = lamp_scores(torch.full((5,), value))
    assert torch.isfinite(found).all()
    assert found.tolist() == sorted(found.tolist())
    assert found.tolist() == pytest.approx([0.0] * 5 if value == 0 else [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0])


@pytest.mark.parametrize("sparsity", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("power", [1, 2])
def test_masks_are_those_of_the_loop(sparsity, power):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 9), nn.Linear(9, 3))
    model[3].weight.data *= 20
    weights = {k: m.weight.detach().abs().double().flatten().tolist() for k, m in prunable_modules(model).items()}
    ranked = sorted((s, k, i) for k, w in weights.items() for i, s in enumerate(loop(w, power)))
    gone = {(k, i) for _, k, i in ranked[: math.floor(len(ranked) * sparsity + 0.5)]}
    masks = pb.prune(model, sparsity, scope=f"lamp:power={power}" if power != 2 else "lamp")
    for layer, mask in masks.items():
        assert [(layer, i) not in gone for i in range(mask.numel())] == mask.flatten().tolist()


def test_a_layer_s_scale_does_not_matter():
    one, two = (models.build("lenet5", (1, 28, 28), 10) for _ in range(2))
    two.conv1.weight.data *= 2.0**-10
    two.fc1.weight.data *= 2.0**7
    a, b = (pb.prune(m, 0.95, scope="lamp") for m in (one, two))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert sum(int((~m).sum()) for m in a.values()) == math.floor(430500 * 0.95 + 0.5)


def test_filters_are_ranked_by_their_own_scores():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0], [6.0, 0.0]])  # 9/61, 16/52, 1
    model[2].weight.data = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # 1/3, 1/2, 1
    masks = pb.prune(model, 0.4, "l2", scope="lamp", granularity="filter")  # 6 of 15: 2, 4, then 7
    assert masks["0.weight"].any(1).tolist() == [False, False, True]
    assert masks["2.weight"].any(1).tolist() == [False, True, True]
