"""Per-sample gradients: equal to one backward pass per sample, in blocks, by vmap or without it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.criteria import gathering
from prunebench.criteria.gathering import per_sample
from prunebench.masks import prunable_modules


class Refuses(nn.Module):
    """Control flow on values, which vmap can't batch."""

    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


class Twice(nn.Module):
    """One module used twice, and another module that shares its weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.relu(self.a(torch.relu(self.a(x)))))))


def convolutional(*middle):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        *middle,
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36, 4),
    )


NETS = {
    "convolutional": (convolutional, (2, 5, 5)),
    "refusing": (lambda: convolutional(Refuses()), (2, 5, 5)),
    "twice": (Twice, (6,)),
}


def case(name, n=11, size=4):
    torch.manual_seed(0)
    make, shape = NETS[name]
    model = make()
    x, y = torch.randn(n, *shape), torch.randint(0, 4, (n,))
    return model, x, y, list(zip(x.split(size), y.split(size), strict=True))


def by_hand(model, x, y, loss=F.cross_entropy):
    model = copy.deepcopy(model).eval()
    weights = {name: module.weight for name, module in prunable_modules(model).items()}
    rows = [torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(weights.values())) for i in range(len(x))]
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(weights)}


def gathered(model, data, *needs, loss=None):
    return {layer.name: layer for layer in gathering.gather(model, prunable_modules(model), needs, data, loss, "test")}


@pytest.mark.parametrize("name", NETS)
def test_every_sample_has_its_own_gradient(name, monkeypatch):
    monkeypatch.setattr(per_sample, "BLOCK_SAMPLES", 3)
    model, x, y, data = case(name)
    expected = by_hand(model, x, y)
    for layer in gathered(model, data, "per_sample_gradients").values():
        blocks = list(layer.per_sample_gradients)
        assert [len(b) for b in blocks] == [3, 1, 3, 1, 3]
        torch.testing.assert_close(torch.cat(blocks), expected[layer.name], rtol=1e-4, atol=1e-6)
        assert torch.equal(torch.cat(list(layer.per_sample_gradients)), torch.cat(blocks)), "it can be read again"


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [11, 4, 1])
def test_squares_are_averaged_over_samples_not_over_batches(name, size):
    model, x, y, data = case(name, size=size)
    expected = by_hand(model, x, y)
    layers = gathered(model, data, "squared_gradients", "hessian_diag", "gradients")
    for key, layer in layers.items():
        torch.testing.assert_close(layer.squared_grad, expected[key].square().mean(0), rtol=1e-4, atol=1e-7)
        assert torch.equal(layer.squared_grad, layer.hessian_diag)
        torch.testing.assert_close(layer.grad, expected[key].mean(0), rtol=1e-4, atol=1e-7)


def test_samples_that_cancel_still_count():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [-1.0]])
    (layer,) = gathered(model, [(x, y)], "squared_gradients", "gradients", loss=F.mse_loss).values()
    assert layer.grad.item() == 0.0
    assert layer.squared_grad.item() == 4.0  # (2·(0 - ±1)·1)²


def test_a_block_holds_no_more_bytes_than_allowed(monkeypatch):
    monkeypatch.setattr(per_sample, "BLOCK_BYTES", 2 * 36 * 4 * 4)  # two samples of the last layer
    model, _x, _y, data = case("convolutional")
    layers = gathered(model, data, "per_sample_gradients")
    assert max(len(b) for b in layers["6.weight"].per_sample_gradients) == 2


@pytest.mark.parametrize("name", NETS)
def test_the_model_is_in_its_own_mode_between_blocks(name):
    model, _x, _y, data = case(name)
    model.train()
    model.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for layer in gathered(model, data, "per_sample_gradients").values():
        for block in layer.per_sample_gradients:
            assert all(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            assert not block.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_error_of_the_model_itself_is_not_hidden():
    model, _x, y, _data = case("convolutional")
    with pytest.raises(RuntimeError, match="channels"):
        gathered(model, [(torch.randn(11, 3, 5, 5), y)], "squared_gradients")
