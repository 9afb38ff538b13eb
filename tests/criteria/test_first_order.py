"""Scores from gradients against autograd by hand, sample by sample, and against what removing a weight really does."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4)
    ).to(dtype)


def samples(n=9, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 3, 3, generator=generator, dtype=dtype), torch.randint(0, 4, (n,), generator=generator)


def batches(size=4):
    x, y = samples()
    return list(zip(x.split(size), y.split(size), strict=True))


def scores(name, model, data=None, **more):
    return criteria.score(name, model, prunable_modules(model), data=data or batches(), **more)


def loss_of(model):
    x, y = samples()
    return F.cross_entropy(model.eval()(x), y)


def gradients(model):
    weights = {name: m.weight for name, m in prunable_modules(model).items()}
    return dict(zip(weights, torch.autograd.grad(loss_of(model), list(weights.values())), strict=True))


def squares(model):
    x, y = samples()
    weights = [m.weight for m in prunable_modules(model.eval()).values()]
    rows = [torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), weights) for i in range(len(x))]
    means = [torch.stack([row[k] ** 2 for row in rows]).mean(0) for k in range(len(weights))]
    return dict(zip(prunable_modules(model), means, strict=True))


FORMULAS = {
    "gradient": lambda w, g, h: g.abs(),
    "snip": lambda w, g, h: (w * g).abs(),
    "taylor": lambda w, g, h: (w * g) ** 2,
    "movement": lambda w, g, h: -w * g,
    "obd": lambda w, g, h: h * w**2 / 2,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_it_is_its_formula(name):
    model = net()
    g, h = gradients(model), squares(model)
    for layer, found in scores(name, net()).items():
        expected = FORMULAS[name](model.get_parameter(layer).detach(), g[layer], h[layer])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_snip_is_the_effect_of_a_connection_s_strength():
    model, step = net(), 1e-6
    found = scores("snip", model)
    for layer, index in [("0.weight", (1, 0, 0, 1)), ("5.weight", (2, 7))]:
        values = []
        for sign in (1, -1):
            other = copy.deepcopy(model)
            other.get_parameter(layer).data[index] *= 1 + sign * step
            values.append(loss_of(other).item())
        assert found[layer][index].item() == pytest.approx(abs(values[0] - values[1]) / (2 * step), rel=1e-5)


def test_taylor_s_filter_forms():
    model = net()
    change = {n: (model.get_parameter(n).detach() * g).flatten(1) for n, g in gradients(model).items()}
    for name, expected in (("taylor", lambda c: (c**2).sum(1)), ("taylor:group=true", lambda c: c.sum(1) ** 2)):
        for layer, found in scores(name, model).items():
            torch.testing.assert_close(criteria.reducer(name)(found.flatten(1)), expected(change[layer]))


@pytest.mark.parametrize("text", ["taylor:group=3", "taylor:group=maybe", "snip:p=2"])
def test_a_wrong_parameter_is_refused_before_anything_runs(text):
    with pytest.raises(UsageError) as error:
        pb.Pruner(net(), 0.5, text, data=batches())
    assert "\n" not in str(error.value)
    assert text.split(":")[0] in str(error.value)


def squared_norm(model):
    x, y = samples()
    value = F.cross_entropy(model.eval()(x) / 200, y)
    weights = [m.weight for m in prunable_modules(model).values()]
    return sum(float(g.square().sum()) for g in torch.autograd.grad(value, weights))


def test_grasp_is_half_of_what_a_weight_adds_to_the_gradient_s_norm():
    """Scaling w by 1 - δ changes gᵀg by -2δ·w·Hg."""
    model, step = net(), 1e-5
    found = scores("grasp", model)
    for layer, index in [("0.weight", (1, 0, 0, 1)), ("5.weight", (2, 7)), ("5.weight", (0, 3))]:
        values = []
        for sign in (1, -1):
            other = copy.deepcopy(model)
            other.get_parameter(layer).data[index] *= 1 + sign * step
            values.append(squared_norm(other))
        assert found[layer][index].item() == pytest.approx((values[0] - values[1]) / (4 * step), rel=1e-4)


def test_grasp_s_lowest_weights_are_those_the_gradient_flow_can_spare():
    model = net()
    found = torch.cat([s.flatten() for s in scores("grasp", model).values()])
    order = found.argsort()
    norms = {}
    for which, chosen in (("lowest", order[:6]), ("highest", order[-6:])):
        other = copy.deepcopy(model)
        gone = torch.zeros(len(found), dtype=torch.bool)
        gone[chosen] = True
        modules = prunable_modules(other).values()
        for module, part in zip(modules, gone.split([m.weight.numel() for m in modules]), strict=True):
            module.weight.data *= 1 - 0.05 * part.view_as(module.weight)  # near enough for the first order
        norms[which] = squared_norm(other)
    assert norms["highest"] < squared_norm(model) < norms["lowest"]


def test_obd_is_not_the_square_of_the_mean():
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(0.5)
    x, y = torch.tensor([[1.0], [1.0]]).double(), torch.tensor([[1.5], [-0.5]]).double()
    found = criteria.score("obd", model, prunable_modules(model), data=[(x, y)], loss=F.mse_loss)
    assert found["weight"].item() == pytest.approx(0.5 * 4.0 * 0.25)  # both gradients are ±2, their mean 0


class TestMovement:
    def run(self, model, pruner, steps, step="step"):
        """Plain training; returns -Σ w·g by hand."""
        total = {name: torch.zeros_like(m.weight) for name, m in prunable_modules(model).items()}
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        data = batches()
        for k in range(steps):
            x, y = data[k % len(data)]
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for name in total:
                weight = model.get_parameter(name)
                total[name] -= weight.detach() * weight.grad
            optimizer.step()
            getattr(pruner, step)()
        return total

    def test_a_training_decides_the_masks(self):
        model = net().eval()
        pruner = pb.Pruner(model, 0.5, "movement", "layerwise", "linear", steps=6, every=6)
        total = self.run(model, pruner, 6)
        for name, mask in pruner.masks.items():
            kept = total[name].flatten().topk(int(mask.sum())).indices.sort().values
            assert torch.equal(mask.flatten().nonzero().flatten(), kept)

    def test_enforce_watches_too(self):
        model = net().eval()
        pruner = pb.Pruner(model, 0.5, "movement", "layerwise", "linear", steps=1)
        total = self.run(model, pruner, 5, "enforce")
        pruner.prune_to(1.0)
        for name, mask in pruner.masks.items():
            assert total[name][mask].min() >= total[name][~mask].max()

    def test_in_one_shot_it_is_the_first_step_s(self):
        one, other = net(), net()
        masks = pb.prune(one, 0.5, "movement", data=batches())
        expected = torch.cat([(-other.get_parameter(n) * g).flatten() for n, g in gradients(other).items()])
        kept = torch.cat([m.flatten() for m in masks.values()])
        assert expected[kept].min() > expected[~kept].max()

    def test_clearing_gradients_too_early_is_said(self):
        model = net()
        pruner = pb.Pruner(model, 0.5, "movement", schedule="linear", steps=1)
        loss_of(model).backward()
        model.zero_grad()
        with pytest.raises(UsageError, match=r"no gradient.*before zero_grad"):
            pruner.step()
