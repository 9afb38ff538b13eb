"""Wanda: its score from the inputs, and exact shares for every output row."""

import warnings

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.masks import LayerCollapseWarning, prunable_modules, pruned_count
from prunebench.rows import to_rows


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 64, 7),
    )


def data(size=3, n=8):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 2, 4, 4, generator=generator), torch.randint(0, 7, (n,), generator=generator)
    return list(zip(x.split(size), y.split(size), strict=True))


def test_a_linear_layer_s_score_is_the_paper_s():
    model = net().eval()
    found = criteria.score("wanda", model, prunable_modules(model), data=data())
    with torch.no_grad():
        inputs = torch.cat([model[:4](x) for x, _ in data()])
    torch.testing.assert_close(found["4.weight"], model[4].weight.detach().abs() * inputs.norm(dim=0))


def test_a_convolution_s_score_goes_by_unfolded_inputs():
    model = net()
    found = criteria.score("wanda", model, prunable_modules(model), data=data())
    x = torch.cat([x for x, _ in data()])
    taps = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18)
    expected = model[0].weight.detach().abs().flatten(1) * taps.norm(dim=0)
    torch.testing.assert_close(found["0.weight"].flatten(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_every_row_loses_the_same(scope, sparsity):
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        masks = pb.prune(model, sparsity, "wanda", scope, data=data())
    total = 0
    for name, mask in masks.items():
        gone = (~to_rows(model.get_submodule(name[:-7]), mask)).sum(1)
        assert gone.max() - gone.min() <= 1
        assert torch.equal(gone, gone.sort(descending=True).values), "the remainder goes by position"
        total += int(gone.sum())
        if scope == "layerwise":
            assert int(gone.sum()) == pruned_count(mask.numel(), sparsity)
    if scope == "global":
        assert total == pruned_count(sum(m.numel() for m in masks.values()), sparsity)


def test_each_row_keeps_its_own_best():
    model = net()
    found = criteria.score("wanda", model, prunable_modules(model), data=data())
    masks = pb.prune(model, 0.6, "wanda", "layerwise", data=data())
    for name, mask in masks.items():
        module = model.get_submodule(name[:-7])
        for keep, score in zip(to_rows(module, mask), to_rows(module, found[name]), strict=True):
            assert score[keep].min() >= score[~keep].max()


def test_rows_only_shrink_along_a_schedule():
    pruner = pb.Pruner(net(), 0.9, "wanda", "layerwise", "linear", 7, data=data())
    before = None
    for _ in range(7):
        pruner.step()
        for name, mask in pruner.masks.items():
            assert before is None or not (mask & ~before[name]).any()
            gone = (~to_rows(pruner.model.get_submodule(name[:-7]), mask)).sum(1)
            assert gone.max() - gone.min() <= 1
        before = {n: m.clone() for n, m in pruner.masks.items()}


def test_filters_are_compared_among_each_other():
    model = net()
    masks = pb.prune(model, 0.5, "wanda", "layerwise", "filter", data=data())
    assert masks["0.weight"].flatten(1).any(1).tolist().count(False) == 3
