"""Synaptic flow: conserved from layer to layer, blind to the data, and without the model noticing."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.criteria import gathering
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


def net(bias=False):
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=bias),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 5, bias=bias),
    )
    model[1].running_mean.fill_(3.0)  # a trained network's: its absolute value would cut the flow
    return model


def flows(model, data=None):
    layers = gathering.gather(model, prunable_modules(model), ("synaptic_flow",), data, None, "test")
    return {layer.name: layer.weight.abs() * layer.synaptic_flow for layer in layers}


DATA = [(torch.randn(3, 2, 6, 6), torch.zeros(3, dtype=torch.int64))]


def test_every_layer_passes_on_the_whole_flow():
    for flow in flows(net(), DATA).values():
        assert flow.min() >= 0
        assert flow.sum().item() == pytest.approx(1.0, rel=1e-6)


def test_what_comes_into_a_unit_goes_out_of_it():
    found = flows(net(), DATA)
    torch.testing.assert_close(found["0.weight"].sum((1, 2, 3)), found["3.weight"].sum((0, 2, 3)))
    torch.testing.assert_close(found["3.weight"].sum((1, 2, 3)), found["6.weight"].view(5, 6, 4).sum((0, 2)))


def test_it_is_the_gradient_of_the_logarithm_of_all_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    a, b = (model[i].weight.detach().abs().double().requires_grad_() for i in (0, 2))
    c, d = (model[i].bias.detach().abs().double() for i in (0, 2))
    total = (b @ (a @ torch.ones(3, dtype=torch.float64) + c) + d).sum()
    total.log().backward()
    found = list(gathering.gather(model, prunable_modules(model), ("synaptic_flow",), DATA_3, None, "test"))
    torch.testing.assert_close(found[0].synaptic_flow, a.grad)
    torch.testing.assert_close(found[1].synaptic_flow, b.grad)


DATA_3 = [(torch.randn(1, 3), None)]


def test_only_the_shape_of_the_data_is_read():
    other = [(torch.full((9, 2, 6, 6), float("nan")), None)]
    first, second = flows(net(), DATA), flows(net(), other)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_a_model_may_say_its_input_s_shape():
    model = net()
    model.input_shape = (2, 6, 6)
    first, second = flows(net(), DATA), flows(model)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_no_shape_is_one_clear_line(registry_sandbox):
    @pb.criterion("flowing", needs=("synaptic_flow",))
    def flowing(layer):
        return layer.synaptic_flow

    with pytest.raises(UsageError, match=r"'flowing'.*shape.*data=.*model\.input_shape") as error:
        pb.prune(net(), 0.5, "flowing")
    assert "\n" not in str(error.value)


def test_a_cut_network_has_no_flow():
    model = net()
    model[3].weight.data.zero_()
    assert not any(flow.any() for flow in flows(model, DATA).values())


def test_depth_does_not_overflow():
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(60)))
    for layer in model:
        layer.weight.data.fill_(10.0)  # R = 64 · 640^60, far beyond float32
    found = flows(model, [(torch.zeros(1, 64), None)])
    assert all(flow.sum().item() == pytest.approx(1.0, rel=1e-6) for flow in found.values())


def test_beyond_double_precision_it_is_said():
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(120)))
    for layer in model:
        layer.weight.data.fill_(10.0)
    with pytest.raises(UsageError, match="overflows"):
        flows(model, [(torch.zeros(1, 64), None)])


def test_the_model_keeps_weights_types_and_modes():
    model = net(bias=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flows(model, DATA)
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


class Gated(nn.Module):
    """Saturating activations, as modules and as functions, in place too, and a squeeze-and-excite gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(3))
        self.squeeze, self.excite, self.fc = nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False), nn.Linear(3, 2)
        self.six, self.swish, self.gate = nn.ReLU6(inplace=True), nn.Hardswish(), nn.Hardsigmoid()

    def forward(self, x):
        x = torch.tanh(self.c(nn.functional.relu6(self.b(self.swish(self.six(self.a(x)))))))
        gate = self.gate(self.excite(self.squeeze(x.mean((2, 3)))))
        return self.fc((x * gate[..., None, None]).mean((2, 3)))


def test_what_saturates_does_not_cut_the_flow():
    torch.manual_seed(0)
    model = Gated()
    model.fc.bias.data.zero_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    found = flows(model, [(torch.zeros(1, 3, 5, 5), None)])
    for name in ("fc.weight", "squeeze.weight", "excite.weight"):
        assert found[name].sum().item() == pytest.approx(1.0, rel=1e-6), name
    # x and its gate both grow with these: twice the flow.
    assert all(found[f"{n}.weight"].sum().item() == pytest.approx(2.0, rel=1e-6) for n in "abc")
