"""H·g against the Hessian written out by torch.func.hessian, and against finite differences of the gradient."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian

from prunebench.criteria import gathering
from prunebench.masks import prunable_modules


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)).double()


def samples(n=10):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 2, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (n,), generator=generator)


def batches(size):
    x, y = samples()
    return list(zip(x.split(size), y.split(size), strict=True))


def gathered(model, data, need="hessian_product"):
    found = gathering.gather(model, prunable_modules(model), (need, "gradients"), data, None, "test")
    return {layer.name: layer for layer in found}


@pytest.mark.parametrize("temperature", [1, 200])
@pytest.mark.parametrize("size", [10, 4, 1])
def test_it_is_the_hessian_times_the_gradient(size, temperature):
    model = net()
    x, y = samples()
    weights = {name: m.weight.detach() for name, m in prunable_modules(model).items()}
    shapes = [w.shape for w in weights.values()]

    def loss(flat):
        parts = flat.split([s.numel() for s in shapes])
        params = {n: p.view(s) for n, p, s in zip(weights, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, params, (x,)) / temperature, y)

    flat = torch.cat([w.flatten() for w in weights.values()])
    expected = hessian(loss)(flat) @ torch.func.grad(loss)(flat)
    need = "hessian_product" if temperature == 1 else f"hessian_product:temperature={temperature}"
    found = torch.cat([layer.hessian_product.flatten() for layer in gathered(model, batches(size), need).values()])
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-14)


def test_it_is_the_change_of_the_gradient_along_itself():
    model = net()
    layers, step = gathered(model, batches(5)), 1e-5
    moved = []
    for sign in (1, -1):
        other = copy.deepcopy(model)
        for name, module in prunable_modules(other).items():
            module.weight.data += sign * step * layers[name].grad
        moved.append(gathered(other, batches(5)))
    for name, layer in layers.items():
        numeric = (moved[0][name].grad - moved[1][name].grad) / (2 * step)
        torch.testing.assert_close(layer.hessian_product, numeric, rtol=1e-5, atol=1e-9)


def test_a_linear_loss_has_no_curvature():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    data = [(torch.randn(4, 3), torch.zeros(4))]
    (layer,) = gathering.gather(
        model, prunable_modules(model), ("hessian_product",), data, lambda out, y: out.mean(), "test"
    )
    assert not layer.hessian_product.any()


def test_attention_has_a_second_derivative():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    data = [(torch.randn(3, 5, 8), torch.randn(3, 5, 8))]
    modules = prunable_modules(model)
    layers = list(gathering.gather(model, modules, ("hessian_product",), data, F.mse_loss, "test"))
    assert {layer.name for layer in layers} == set(modules)
    assert all(layer.hessian_product.abs().max() > 0 for layer in layers)


def test_hard_activations_have_a_second_derivative():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Hardswish(), nn.Linear(8, 8), nn.Hardsigmoid(), nn.Linear(8, 3)).double()
    data = [(torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,)))]
    layers, step, moved = gathered(model, data), 1e-6, []
    for sign in (1, -1):
        other = copy.deepcopy(model)
        for name, module in prunable_modules(other).items():
            module.weight.data += sign * step * layers[name].grad
        (found,) = torch.autograd.grad(F.cross_entropy(other(data[0][0]), data[0][1]), [other[0].weight])
        moved.append(found)
    numeric = (moved[0] - moved[1]) / (2 * step)
    torch.testing.assert_close(layers["0.weight"].hessian_product, numeric, rtol=1e-4, atol=1e-9)
