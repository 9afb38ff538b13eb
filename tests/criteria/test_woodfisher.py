"""WoodFisher: scores and updates from a dense Fisher matrix assembled by hand, its parameters, and what it is for."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.criteria import woodfisher as module
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules, pruned_count
from prunebench.registry import check

DAMPING = 1e-4


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))


def samples(n=9):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 3, 3, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def data(size=4):
    x, y = samples()
    return list(zip(x.split(size), y.split(size), strict=True))


def fishers(model, block, batch=1):
    """{layer: list of dense F of its blocks}, from one backward pass per sample."""
    x, y = samples()
    weights = {name: m.weight for name, m in prunable_modules(model).items()}
    each = [
        torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), list(weights.values()))
        for a, b in zip(x, y, strict=True)
    ]
    found = {}
    for k, name in enumerate(weights):
        g = torch.stack([row[k].flatten() for row in each]).double()
        g = torch.stack([part.mean(0) for part in g.split(batch)])
        found[name] = [
            DAMPING * torch.eye(part.shape[1]).double() + part.T @ part / len(part) for part in g.split(block, 1)
        ]
    return found


@pytest.mark.parametrize("block", [1, 5, 7, 50])
@pytest.mark.parametrize("chunk", [1 << 22, 100])
@pytest.mark.parametrize("batch", [1, 2])
def test_scores_are_those_of_the_dense_inverse(block, chunk, batch, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    model = net()
    text = f"woodfisher:block={block}:damping={DAMPING}:batch={batch}"
    scores = criteria.score(text, model, prunable_modules(model), data=data())
    for name, blocks in fishers(net(), block, batch).items():
        weight = model.get_parameter(name).detach().flatten().double()
        diagonal = torch.cat([torch.linalg.inv(f).diagonal() for f in blocks])
        torch.testing.assert_close(scores[name].flatten().double(), weight**2 / (2 * diagonal), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("block", [5, 50])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8])
def test_kept_weights_reach_the_minimum_of_the_quadratic_model(block, sparsity):
    model, before = net(), net()
    masks = pb.prune(model, sparsity, f"woodfisher:block={block}:damping={DAMPING}", data=data())
    total = sum(m.numel() for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == pruned_count(total, sparsity)
    for name, blocks in fishers(net(), block).items():
        old, new = (m.get_parameter(name).detach().flatten().double() for m in (before, model))
        keep = masks[name].flatten()
        assert not new[~keep].any()
        for f, w, found, k in zip(blocks, old.split(block), new.split(block), keep.split(block), strict=True):
            # At the minimum the model's gradient F(ŵ − w) has no part along a weight that is free.
            slope = f @ (found - w)
            assert (slope[k].abs() <= 1e-6 * f.abs().max()).all()
            plain = w * k - w
            change = found - w
            assert change @ f @ change <= plain @ f @ plain * (1 + 1e-6)


def test_update_false_only_masks():
    model, before = net(), net()
    masks = pb.prune(model, 0.5, "woodfisher:update=false", data=data())
    assert all(torch.equal(model.get_parameter(n), before.get_parameter(n) * m) for n, m in masks.items())
    assert all(torch.equal(m, masks[n]) for n, m in pb.prune(net(), 0.5, "woodfisher", data=data()).items())


def test_after_a_pruning_the_removed_stay_removed():
    """The inverse is that of the weights that are left, so the second scores are the surgeon's on a smaller network."""
    model = net()
    text = f"woodfisher:block=50:damping={DAMPING}"
    masks = pb.prune(model, 0.4, text, data=data())
    scores = criteria.score(text, model, prunable_modules(model), data=data())
    for name, (f,) in fishers(copy.deepcopy(model), 50).items():
        keep = masks[name].flatten()
        w = model.get_parameter(name).detach().flatten().double()
        expected = torch.zeros_like(w)
        expected[keep] = w[keep] ** 2 / (2 * torch.linalg.inv(f[keep][:, keep]).diagonal())
        torch.testing.assert_close(scores[name].flatten().double(), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_other_granularities_are_made_up_for_too(granularity):
    model, plain = net(), net()
    masks = pb.prune(model, 0.34, "woodfisher", granularity=granularity, data=data())
    pb.prune(plain, 0.34, "woodfisher:update=false", granularity=granularity, data=data())
    assert all(torch.equal(model.get_parameter(n) != 0, m) for n, m in masks.items())
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_the_loss_rises_less_with_the_update():
    """On a trained network whose labels are noisy, so that gradients say something about curvature."""
    torch.manual_seed(0)
    x = torch.randn(600, 12)
    y = (x[:, :4] @ torch.randn(4, 4)).argmax(1)
    y = torch.where(torch.rand(600) < 0.15, torch.randint(0, 4, (600,)), y)
    model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 4))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    for sparsity in (0.2, 0.4, 0.6, 0.8):
        losses = {}
        for text in ("l1", "woodfisher:damping=1e-3:update=false", "woodfisher:damping=1e-3"):
            pruned = copy.deepcopy(model)
            pb.prune(pruned, sparsity, text, data=[(x, y)])
            losses[text] = F.cross_entropy(pruned(x), y).item()
        assert losses["woodfisher:damping=1e-3"] == min(losses.values())


def test_batches_of_any_size_score_alike():
    one, other = (
        criteria.score("woodfisher", model, prunable_modules(model), data=data(size))
        for model, size in ((net(), 9), (net(), 2))
    )
    for name, score in one.items():
        torch.testing.assert_close(score, other[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("given", ["block=0", "block=2.5", "batch=0", "damping=0", "damping=-1", "damping=inf"])
def test_parameters_that_can_not_be_are_refused_when_the_string_is_read(given):
    with pytest.raises(UsageError, match=given.partition("=")[0]) as error:
        check("criteria", f"woodfisher:{given}")
    assert "\n" not in str(error.value)


def test_the_switch_takes_true_or_false():
    assert check("criteria", "woodfisher:update=true") == "woodfisher:update=true"
    with pytest.raises(UsageError, match="true or false"):
        check("criteria", "woodfisher:update=1")
