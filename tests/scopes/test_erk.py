"""ERK against the reference procedure of RigL's code, computed here on its own, and its promises on real networks."""

import math
import warnings

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.masks import LayerCollapseWarning, prunable_modules
from prunebench.scopes import share_out
from prunebench.units import UnitSet


def reference(shapes, sparsity):
    """Densities: layers whose probability passes 1 become dense, one maximum at a time, and ε is solved again."""
    dense = set()
    while True:
        others = [n for n in shapes if n not in dense]
        keep = (1 - sparsity) * sum(math.prod(s) for s in shapes.values()) - sum(math.prod(shapes[n]) for n in dense)
        raw = {n: sum(shapes[n]) / math.prod(shapes[n]) for n in others}
        epsilon = keep / sum(raw[n] * math.prod(shapes[n]) for n in others)
        if max(raw.values()) * epsilon <= 1:
            return {n: 1.0 if n in dense else epsilon * raw[n] for n in shapes}
        dense |= {n for n in others if raw[n] == max(raw.values())}


NETS = [("lenet300", (1, 28, 28)), ("lenet5", (1, 28, 28)), ("resnet20", (3, 32, 32)), ("mobilenet_v2", (3, 32, 32))]


@pytest.mark.parametrize(("name", "shape"), NETS)
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.98])
def test_densities_are_the_published_ones_and_the_total_is_exact(name, shape, sparsity):
    model = models.build(name, shape, 10)
    shapes = {k: tuple(m.weight.shape) for k, m in prunable_modules(model).items()}
    masks = pb.prune(model, sparsity, scope="erk")
    expected = reference(shapes, sparsity)
    for layer, mask in masks.items():
        # A density solved on reals, a count in whole weights.
        assert abs(int(mask.sum()) - expected[layer] * mask.numel()) <= 1, layer
    total = sum(m.numel() for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == math.floor(total * sparsity + 0.5)


def test_by_hand():
    # Σ dims 4 + 3 + 3 + 1 = 11 of 36 and 12 + 12 = 24 of 144; 90 kept: ε = 90 / 35, 28.29 and 61.71.
    model = nn.Sequential(nn.Conv2d(3, 4, (3, 1)), nn.Linear(12, 12))
    masks = pb.prune(model, 0.5, scope="erk")
    assert [int(m.sum()) for m in masks.values()] == [28, 62]


def test_a_layer_that_would_pass_one_stays_dense():
    # 108 of 180 over 4 + 90 dimensions: ε is above 1, so the first would keep more than its 4, and the other 104.
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 88))
    masks = pb.prune(model, 0.4, scope="erk")
    assert masks["0.weight"].all()
    assert int(masks["1.weight"].sum()) == 104


def test_within_a_layer_the_lowest_go():
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    before = {k: m.weight.detach().abs().flatten().clone() for k, m in prunable_modules(model).items()}
    for layer, mask in pb.prune(model, 0.8, scope="erk").items():
        kept = mask.flatten()
        assert before[layer][kept].min() > before[layer][~kept].max()


def test_counts_along_a_schedule_are_exact_and_masks_only_shrink():
    # Largest remainders alone would give a layer a weight back here and there (the Alabama paradox).
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in [(7, 5), (5, 9), (9, 3), (3, 11), (11, 4)]))
    total = sum(m.weight.numel() for m in model)
    pruner, before = pb.Pruner(model, 0.9, scope="erk", schedule="linear", steps=97), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        for k in range(1, 98):
            pruner.step()
            gone = {n: ~m for n, m in pruner.masks.items()}
            assert sum(int(g.sum()) for g in gone.values()) == math.floor(total * 0.9 * (k / 97) + 0.5)
            assert before is None or not any((before[n] & ~gone[n]).any() for n in gone)
            before = gone


def test_every_layer_keeps_a_weight_at_the_very_end():
    masks = pb.prune(nn.Sequential(nn.Linear(3, 40), nn.Linear(40, 40)), 0.999, scope="erk")
    assert [int(m.sum()) for m in masks.values()] == [1, 1]


def test_filters_of_tied_layers_share_a_density_and_come_near_the_total():
    model = models.build("resnet20", (3, 32, 32), 10)
    masks = pb.prune(model, 0.5, granularity="filter", scope="erk")
    masks.pop("fc.weight")
    total = sum(m.numel() for m in masks.values())
    largest = 64 * 9 * 4 * 64  # the widest stage's tied filters
    assert abs(sum(int((~m).sum()) for m in masks.values()) - total / 2) <= largest / 64


def test_a_set_of_several_layers_has_the_sum_of_their_dimensions():
    def expand(keep):
        return {"a": keep.view(-1, 1).expand(6, 4), "b": keep.view(-1, 1, 1, 1).expand(6, 2, 3, 1)}

    tied = UnitSet(("a", "b"), torch.arange(6.0), 10, expand)
    alone = UnitSet(("c",), torch.arange(200.0), 1, lambda keep: {"c": keep.view(10, 20)})
    assert tied.shapes == ((6, 4), (6, 2, 3, 1))
    # 22 and 30 dimensions share 130 weights, 55 and 75: half a unit of 10 should go, none does, and 130 single weights.
    assert share_out("erk", [tied, alone], 0.5) == [0, 130]
    # Of 52 weights 22 and 30: 38 should go, 40 do, so of the 170 there are two fewer.
    assert share_out("erk", [tied, alone], 0.8) == [4, 168]
