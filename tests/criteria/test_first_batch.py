"""Scores at initialisation: batch norms take the batch's statistics on request, as SNIP's and GraSP's own code does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


def net(seen=0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).double()
    for _ in range(seen):
        model(samples()[0])
    return model


def samples(n=12):
    generator = torch.Generator().manual_seed(1)
    return 5 * torch.randn(n, 2, 6, 6, generator=generator).double() + 2, torch.randint(0, 3, (n,), generator=generator)


def scored(name, model, batch_norm="batch"):
    modules = prunable_modules(model)
    return {
        n: s.double() for n, s in criteria.score(name, model, modules, data=[samples()], batch_norm=batch_norm).items()
    }


def published_snip(model):
    """|w·∂L/∂w| in whatever mode the model is, the way the paper's code does it: one forward, one backward."""
    x, y = samples()
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return {name: (m.weight * m.weight.grad).abs() for name, m in prunable_modules(model).items()}


def published_grasp(model):
    x, y = samples()
    weights = {name: m.weight for name, m in prunable_modules(model).items()}
    grads = torch.autograd.grad(F.cross_entropy(model(x) / 200, y), list(weights.values()), create_graph=True)
    z = sum((g.detach() * g).sum() for g in grads)
    products = torch.autograd.grad(z, list(weights.values()))
    return {name: w * h for (name, w), h in zip(weights.items(), products, strict=True)}


@pytest.mark.parametrize(("name", "published"), [("snip", published_snip), ("grasp", published_grasp)])
def test_an_untrained_network_is_scored_as_by_the_published_code(name, published):
    found, expected = scored(name, net()), published(net().train())
    evaluated = published(net().eval())
    for layer, score in found.items():
        scale = expected[layer].detach().abs().max()
        torch.testing.assert_close(score / scale, expected[layer].detach() / scale, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(score / scale, evaluated[layer].detach() / scale, rtol=0.1, atol=1e-2)


@pytest.mark.parametrize("seen", [0, 1])
def test_running_statistics_are_used_unless_asked_otherwise(seen):
    found = scored("snip", net(seen), "running")
    expected = published_snip(net(seen).eval())
    for layer, score in found.items():
        torch.testing.assert_close(score, expected[layer].detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_the_statistics_stay_untouched(name):
    model = net()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    pb.prune(model, 0.5, criterion=name, data=[samples()], scope="layerwise", batch_norm="batch")
    for n, t in model.state_dict().items():
        if "weight" not in n:
            assert torch.equal(t, before[n])
    assert all(m.training for m in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_one_sample_without_a_variance_is_no_hindrance():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    masks = pb.prune(model, 0.5, criterion="snip", data=[(torch.randn(1, 3), torch.tensor([1]))], batch_norm="batch")
    assert sum(int(m.sum()) for m in masks.values()) == 10


def test_another_word_is_refused_and_the_model_untouched():
    model = net()
    with pytest.raises(UsageError, match=r"'sample'.*running, batch"):
        pb.prune(model, 0.5, criterion="snip", data=[samples()], batch_norm="sample")
    assert all(bool((m.weight != 0).all()) for m in prunable_modules(model).values())
