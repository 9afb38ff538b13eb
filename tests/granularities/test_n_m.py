"""N:M against an exhaustive choice per group, axes of every kind of layer, and what stays dense."""

import itertools
import warnings

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import models, profiles
from prunebench.errors import UsageError
from prunebench.granularities import only_sparsity, reachable
from prunebench.masks import NotPrunedWarning

CASES = [(2, 4), (1, 4), (3, 4), (1, 2), (4, 8), (2, 6)]


def best_subset(group, n):
    """Which n of a group's scores are kept, by trying all: the largest sum, of equals the last positions."""
    choices = itertools.combinations(range(len(group)), n)
    return max(choices, key=lambda c: (round(sum(group[i] for i in c), 6), c))


def rows(tensor, axis):
    """A weight-shaped tensor as rows along the input channels."""
    return tensor.movedim(axis, -1).flatten(0, -2)


def checked(layer, axis, n, m):
    weight = layer.weight.detach().abs().clone()
    masks = pb.prune(layer, 1 - n / m, granularity=f"n_m:n={n}:m={m}")
    for scores, kept in zip(rows(weight, axis), rows(masks["weight"], axis), strict=True):
        for g in range(0, len(scores), m):
            expected = best_subset(scores[g : g + m].tolist(), n)
            assert kept[g : g + m].nonzero().flatten().tolist() == list(expected)


@pytest.mark.parametrize(("n", "m"), CASES)
def test_linear_rows_keep_the_best_of_every_group(n, m):
    checked(nn.Linear(24, 7), 1, n, m)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (lambda: nn.Conv2d(8, 5, 3), 1),
        (lambda: nn.Conv1d(8, 5, 3), 1),
        (lambda: nn.Conv2d(16, 6, (1, 3), groups=2), 1),
        (lambda: nn.ConvTranspose2d(8, 5, 2), 0),
        (lambda: nn.ConvTranspose2d(16, 6, 2, groups=2), 0),
    ],
    ids=["conv2d", "conv1d", "grouped", "transposed", "transposed grouped"],
)
def test_convolutions_run_along_input_channels(layer, axis):
    checked(layer(), axis, 2, 4)


def test_ties_go_by_position():
    layer = nn.Linear(8, 2)
    layer.weight.data.fill_(0.5)
    assert pb.prune(layer, 0.5, granularity="n_m")["weight"].tolist() == [[False, False, True, True] * 2] * 2


@pytest.mark.parametrize("scope", ["global", "layerwise", "erk", "lamp", "global:first=dense"])
def test_the_end_is_exactly_n_of_m_under_every_scope(scope):
    model = models.build("lenet300", (1, 28, 28), 10)
    masks = pb.prune(model, 0.75, granularity="n_m:n=1:m=4", scope=scope)
    for name, mask in masks.items():
        if "first" in scope and name == next(iter(masks)):
            assert mask.all()
        else:
            assert (mask.unflatten(1, (-1, 4)).sum(-1) == 1).all()


def test_layers_whose_inputs_do_not_fit_stay_dense_and_are_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    with pytest.warns(NotPrunedWarning, match=r"0\.weight, 1\.weight stay dense.*multiple of 4"):
        masks = pb.prune(model, 0.5, granularity="n_m")
    assert masks["0.weight"].all()
    assert masks["1.weight"].all()
    assert int(masks["2.weight"].sum()) == 16


def test_the_caller_may_make_an_error_of_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotPrunedWarning):
            pb.prune(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), 0.5, granularity="n_m")


def test_along_a_schedule_groups_lose_their_lowest_and_end_at_n():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))
    pruner = pb.Pruner(model, 0.5, "random", granularity="n_m", schedule="linear", steps=10)
    total, before = 288, None
    for k in range(1, 11):
        pruner.step()
        kept = [m.unflatten(1, (-1, 4)).sum(-1) for m in pruner.masks.values()]
        assert all(((g >= 2) & (g <= 4)).all() for g in kept)
        assert sum(int((~m).sum()) for m in pruner.masks.values()) == int(total * 0.05 * k + 0.5)
        assert before is None or not any((pruner.masks[n] & ~before[n]).any() for n in before)
        before = {n: m.clone() for n, m in pruner.masks.items()}
    assert all((g == 2).all() for g in kept)


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("n_m", 0.5, 0.5),
        ("n_m:n=1", 0.75, 0.75),
        ("n_m:n=1:m=3", 0.6667, 2 / 3),
        ("n_m", 0.0, 0.0),
        ("weight", 0.3, 0.3),
    ],
)
def test_its_sparsity(text, given, found):
    assert reachable(text, given) == pytest.approx(found, abs=1e-12)


def test_thirds_are_exact_though_no_decimal_is():
    masks = pb.prune(nn.Linear(3000, 10), 0.667, granularity="n_m:n=1:m=3")
    assert int(masks["weight"].sum()) == 10000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sparsity": 0.9, "granularity": "n_m"}, ["'n_m'", "0.9", "0.5"]),
        ({"sparsity": 0.5, "granularity": "n_m:n=1:m=4"}, ["0.5", "0.75"]),
        ({"sparsity": 0.5, "granularity": "n_m", "overrides": {"0": 0.25}}, ["0.25", "0.5"]),
        ({"sparsity": 0.5, "granularity": "n_m:n=4:m=2"}, ["n=4", "0 < n < m"]),
        ({"sparsity": 0.5, "granularity": "n_m:n=0"}, ["n=0", "0 < n < m"]),
        ({"sparsity": 0.5, "granularity": "n_m:n=1.5"}, ["n=1.5", "whole"]),
        ({"sparsity": 0.875, "granularity": "n_m:n=4:m=32"}, ["multiple of 32"]),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(arguments, words):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(UsageError) as error:
        pb.prune(model, **arguments)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_in_a_grid_it_takes_part_at_its_own_sparsity():
    grid = {"granularities": "weight,n_m:n=1:m=4", "sparsities": "0.5,0.75,0.9"}
    found = [(c.granularity, c.sparsity) for c in profiles.plan("smoke", grid).cells]
    assert found == [("none", 0.0), *(("weight", s) for s in (0.5, 0.75, 0.9)), ("n_m:m=4:n=1", 0.75)]
    assert only_sparsity("n_m:m=4:n=1") == 0.75
    with pytest.raises(UsageError, match=r"'n_m'.*0\.9.*0\.5"):
        profiles.plan("smoke", {"granularities": "weight,n_m", "sparsities": "0.9"})
    assert len(profiles.plan("smoke", {"granularities": "n_m", "sparsities": "0"}).cells) == 1
