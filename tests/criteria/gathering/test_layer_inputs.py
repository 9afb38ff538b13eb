"""Input norms and Gram matrices of every kind of layer, against the definition: what a weight is multiplied with."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.criteria import gathering
from prunebench.criteria.gathering import input_gram
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules

LAYERS = {
    "linear": (nn.Linear(5, 3), (5,)),
    "linear_of_tokens": (nn.Linear(5, 3), (4, 5)),
    "conv": (nn.Conv2d(3, 4, 3, padding=1, stride=2), (3, 7, 6)),
    "conv_same": (nn.Conv2d(3, 4, (2, 3), padding="same", dilation=(2, 1)), (3, 7, 6)),
    "conv_reflect": (nn.Conv2d(2, 4, 3, padding=2, padding_mode="reflect"), (2, 5, 5)),
    "conv_circular": (nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), (2, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, dilation=2), (4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 5, 5)),
    "conv1d": (nn.Conv1d(3, 2, 4, stride=3, bias=False), (3, 11)),
    "conv3d": (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 3, 4, 5)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 4, 5)),
    "transposed_grouped": (nn.ConvTranspose1d(4, 6, 4, stride=3, padding=1, dilation=2, groups=2), (4, 6)),
}


def gathered(model, data, *needs):
    found = gathering.gather(model, prunable_modules(model), needs, data, None, "test")
    return {layer.name: layer for layer in found}


def batches(shape, size, n=4):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, *shape, generator=generator)
    return [(part, None) for part in x.split(size)]


def multiplied_with(module, x):
    """(outputs' positions, *weight): the coefficient of every weight in every output value, by autograd."""
    out = module(x)
    rows = [torch.autograd.grad(out.flatten()[i], module.weight, retain_graph=True)[0] for i in range(out.numel())]
    return torch.stack(rows).double()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("size", [4, 3])
def test_a_norm_is_that_of_all_that_a_weight_was_multiplied_with(kind, size):
    module, shape = LAYERS[kind]
    (layer,) = gathered(nn.Sequential(module), batches(shape, size), "input_norms").values()
    expected = sum(multiplied_with(module, x).square().sum(0) for x, _ in batches(shape, size)).sqrt()
    assert layer.input_norms.shape == module.weight.shape
    torch.testing.assert_close(layer.input_norms.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("size", [4, 3])
def test_a_gram_matrix_is_that_of_one_output_s_inputs(kind, size, monkeypatch):
    monkeypatch.setattr(input_gram, "BLOCK_BYTES", 5000)
    module, shape = LAYERS[kind]
    (layer,) = gathered(nn.Sequential(module), batches(shape, size), "input_gram").values()
    groups = getattr(module, "groups", 1)
    found = layer.input_gram
    rows = sum_of_rows(module, torch.cat([x for x, _ in batches(shape, size)]), groups)
    torch.testing.assert_close(found.double(), rows, rtol=1e-5, atol=1e-4)


def sum_of_rows(module, x, groups):
    coefficients = multiplied_with(module, x)
    transposed = getattr(module, "transposed", False)
    if transposed:  # (in, out/groups, *taps) as (groups, in/groups, out/groups, *taps)
        parts = coefficients.unflatten(1, (groups, -1))[:, :, :, 0]
    else:
        parts = coefficients.unflatten(1, (groups, -1))[:, :, 0]
    flat = parts.flatten(2)  # one output of each group, over all output values; zero for those of other outputs
    return torch.einsum("pgi,pgj->gij", flat, flat)


def test_a_gram_matrix_s_diagonal_is_the_norms_squared():
    module = nn.Conv2d(4, 6, 3, groups=2, padding=1)
    (layer,) = gathered(nn.Sequential(module), batches((4, 6, 6), 3), "input_gram", "input_norms").values()
    norms = layer.input_norms.unflatten(0, (2, 3))[:, 0].flatten(1)
    torch.testing.assert_close(layer.input_gram.diagonal(dim1=1, dim2=2), norms.square(), rtol=1e-5, atol=1e-4)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(input=self.a(self.a(x)))


def test_every_use_of_a_weight_counts():
    model = Shared()
    data = batches((4,), 3)
    (layer,) = gathered(model, data, "input_norms", "input_gram").values()
    x = torch.cat([x for x, _ in data])
    with torch.no_grad():
        inputs = torch.cat([x, model.a(x), model.a(model.a(x))])
    torch.testing.assert_close(layer.input_norms[0], inputs.norm(dim=0))
    torch.testing.assert_close(layer.input_gram[0], inputs.T @ inputs)


def test_a_sample_without_its_batch_dimension():
    module = nn.Conv2d(2, 3, 3)
    x = torch.randn(2, 5, 5)
    (one,) = gathered(nn.Sequential(module), [(x, None)], "input_norms", "input_gram").values()
    (same,) = gathered(nn.Sequential(module), [(x[None], None)], "input_norms", "input_gram").values()
    torch.testing.assert_close(one.input_norms, same.input_norms)
    torch.testing.assert_close(one.input_gram, same.input_gram)


@pytest.mark.parametrize("need", ["input_norms", "input_gram", "activations"])
def test_a_layer_that_is_never_called_is_named_with_a_remedy(need):
    class Reading(nn.Module):
        """Its second layer is read, not called."""

        def __init__(self):
            super().__init__()
            self.called, self.read = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return F.linear(self.called(x), self.read.weight)

    model = Reading()
    with pytest.raises(UsageError, match=r"read\.weight.*exclude=") as error:
        gathered(model, [(torch.randn(2, 3, 8), None)], need)
    assert "\n" not in str(error.value)
    assert not any(m._forward_hooks for m in model.modules())
