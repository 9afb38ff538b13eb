"""Sample gradients: those of one backward pass per sample, whatever the layer and however they are kept and read."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.criteria import gathering
from prunebench.criteria.gathering import sample_gradients
from prunebench.masks import prunable_modules
from prunebench.rows import to_rows


class Twice(nn.Module):
    """One module used twice, another that shares its weight, and tokens."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.relu(self.a(torch.relu(self.a(x)))))).mean(1))


class Awkward(nn.Module):
    """What hooks can't serve: tokens first, a functional use, a layer that never runs, one without effect."""

    def __init__(self):
        super().__init__()
        self.tokens, self.bare, self.spare, self.idle = (nn.Linear(5, 5) for _ in range(4))
        self.out = nn.Linear(5, 4)

    def forward(self, x):
        x = self.tokens(x.transpose(0, 1)).transpose(0, 1).sum(1)
        self.idle(x)
        return self.out(F.linear(torch.relu(x), self.bare.weight))


def conv2d(**options):
    return lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=False, **options),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


NETS = {
    "linear": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU(inplace=True), nn.Linear(5, 4)), (7,)),
    "conv": (conv2d(padding=1), (4, 6, 5)),
    "strided": (conv2d(stride=2, padding=2, dilation=2), (4, 9, 7)),
    "reflected": (conv2d(padding=1, padding_mode="reflect"), (4, 5, 5)),
    "grouped": (conv2d(groups=2), (4, 5, 5)),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)),
        (4, 5, 5),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)), (3, 9)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)), (2, 3, 4, 3)),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(4),
        ),
        (4, 3, 4),
    ),
    "twice": (Twice, (3, 6)),
    "awkward": (Awkward, (3, 5)),
}


def case(name, n=7, size=3):
    torch.manual_seed(0)
    make, shape = NETS[name]
    model = make()
    x, y = torch.randn(n, *shape), torch.randint(0, 4, (n,))
    model.eval()(x)
    return model, x, y, list(zip(x.split(size), y.split(size), strict=True))


def by_hand(model, x, y, loss=F.cross_entropy):
    model = copy.deepcopy(model).eval()
    modules = prunable_modules(model)
    weights = [module.weight for module in modules.values()]
    found = {name: [] for name in modules}
    for i in range(len(x)):
        gradients = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), weights, allow_unused=True)
        for (name, module), g in zip(modules.items(), gradients, strict=True):
            found[name].append(to_rows(module, torch.zeros_like(module.weight) if g is None else g).flatten())
    return {name: torch.stack(gs) for name, gs in found.items()}


def gathered(model, data, loss=None):
    layers = gathering.gather(model, prunable_modules(model), ("sample_gradients",), data, loss, "test")
    return {layer.name: layer.sample_gradients for layer in layers}


def whole(found, width=10**9):
    parts = list(found.blocks(width))
    assert [start for start, _ in parts] == list(range(0, found.size, width))
    return torch.cat([part for _, part in parts], 1)


@pytest.mark.parametrize("keep", ["uses", "products", "whichever is smaller"])
@pytest.mark.parametrize("name", NETS)
def test_each_is_one_backward_pass(name, keep, monkeypatch):
    model, x, y, data = case(name)
    if keep != "whichever is smaller":
        plan = sample_gradients._Recorder.plan

        def forced(self, x):
            most = plan(self, x)
            self.plain = dict.fromkeys(self.plain, keep == "uses")
            return most

        monkeypatch.setattr(sample_gradients._Recorder, "plan", forced)
    expected = by_hand(model, x, y)
    found = gathered(model, data)
    assert list(found) == list(expected)
    for layer, right in expected.items():
        assert found[layer].count == 7
        torch.testing.assert_close(whole(found[layer]), right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [1, 4, 17, 50])
@pytest.mark.parametrize("room", [0, 3000, 2**29])
@pytest.mark.parametrize("name", ["conv", "grouped", "depthwise", "transposed", "twice"])
def test_any_width_reads_the_same(name, width, room, monkeypatch):
    monkeypatch.setattr(sample_gradients, "UNFOLDED_BYTES", room)
    model, _, _, data = case(name)
    for found in gathered(model, data).values():
        torch.testing.assert_close(whole(found, width), whole(found), rtol=1e-5, atol=1e-7)


def test_the_smaller_form_is_kept():
    torch.manual_seed(0)
    # 1 x 1 on 16 positions: 16 weights against 128 numbers; linear: 4096 weights against 192.
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64))
    found = gathered(model, [(torch.randn(2, 4, 4, 4), torch.tensor([0, 1]))])
    assert isinstance(found["0.weight"].batches[0], torch.Tensor)
    assert all(isinstance(found[name].batches[0], list) for name in ("3.weight", "4.weight"))


@pytest.mark.parametrize("name", ["conv", "awkward"])
def test_samples_that_do_not_fit_are_left_out(name, monkeypatch):
    model, x, y, data = case(name)
    monkeypatch.setattr(sample_gradients, "KEPT_BYTES", 0)
    assert {found.count for found in gathered(model, data).values()} == {1}
    per_sample = next(b for b in range(1, 10**6, 64) if _planned(model, data, b, monkeypatch) >= 2) // 2
    monkeypatch.setattr(sample_gradients, "KEPT_BYTES", 5 * per_sample + 100)
    expected = by_hand(model, x[:5], y[:5])
    for layer, found in gathered(model, data).items():
        assert found.count == 5
        torch.testing.assert_close(whole(found), expected[layer], rtol=1e-4, atol=1e-6)


def _run(model, x):
    return gathering.Run(model, prunable_modules(model), [(x, torch.zeros(len(x), dtype=torch.int64))], None, "test")


def _planned(model, data, most, monkeypatch):
    monkeypatch.setattr(sample_gradients, "KEPT_BYTES", most)
    run = _run(model, data[0][0])
    found = {name: sample_gradients.SampleGradients(module.weight.numel()) for name, module in run.modules.items()}
    return sample_gradients._Recorder(run, found).plan(data[0][0][:1])


def test_batches_may_come_in_one_buffer():
    model, x, y, _ = case("linear", 6)

    class Data:
        def __iter__(self):
            buffer = torch.empty(3, 7)
            for start in (0, 3):
                yield buffer.copy_(x[start : start + 3]), y[start : start + 3]

    for layer, right in by_hand(model, x, y).items():
        torch.testing.assert_close(whole(gathered(model, Data())[layer]), right, rtol=1e-4, atol=1e-6)


def test_another_loss_and_frozen_weights():
    model, x, y, data = case("conv")
    model[0].weight.requires_grad_(False)

    def loss(out, y):
        return ((out - F.one_hot(y, 4)) ** 2).mean()

    found = gathered(model, data, loss)
    assert not model[0].weight.requires_grad
    assert all(p.requires_grad for n, p in model.named_parameters() if n != "0.weight")
    model[0].weight.requires_grad_(True)
    for layer, right in by_hand(model, x, y, loss).items():
        torch.testing.assert_close(whole(found[layer]), right, rtol=1e-4, atol=1e-6)


def test_double_weights_have_double_gradients():
    model, x, y, _ = case("conv")
    model, x = model.double(), x.double()
    for layer, found in gathered(model, [(x, y)]).items():
        assert whole(found).dtype == torch.float64
        torch.testing.assert_close(whole(found), by_hand(model, x, y)[layer], rtol=1e-10, atol=1e-12)


def test_the_model_is_left_as_it_was():
    model, _, _, data = case("conv")
    model.train()
    model[1].eval()
    before, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    model[0].weight.grad = torch.ones_like(model[0].weight)
    gathered(model, data)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[4].weight.grad is None
    assert not any(m._forward_hooks for m in model.modules())
