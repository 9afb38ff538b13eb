"""Functional calls with constant weights become modules, and compute the same."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.constants import constants
from prunebench.engine.functional import lift


class Held(nn.Module):
    """Parameters and buffers, and a function of (self, x)."""

    def __init__(self, forward, **tensors):
        super().__init__()
        self.function = forward
        for name, t in tensors.items():
            self.register_parameter(name, nn.Parameter(t, requires_grad=False))

    def forward(self, x):
        return self.function(self, x)


def kinds(graph: fx.GraphModule) -> list[type]:
    return [type(graph.get_submodule(n.target)) for n in graph.graph.nodes if n.op == "call_module"]


def lifted(model: nn.Module, x: torch.Tensor) -> fx.GraphModule:
    """The lifted graph, after a comparison in float64."""
    exact = copy.deepcopy(model.eval()).double()
    want = exact(x.double())
    torch.testing.assert_close(lift(fx.symbolic_trace(exact))(x.double()), want, rtol=1e-12, atol=1e-12)
    graph = lift(fx.symbolic_trace(model))
    torch.testing.assert_close(graph(x).double(), want, rtol=1e-4, atol=1e-4)
    return graph


W, B = torch.randn(6, 4, 3, 3), torch.randn(6)
GROUPED = torch.randn(6, 2, 3, 3)


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: F.conv2d(x, s.w),
        lambda s, x: F.conv2d(x, s.w, s.b, padding=1),
        lambda s, x: F.conv2d(x, weight=s.w, bias=s.b, stride=(2, 1), padding=(0, 2)),
        lambda s, x: F.conv2d(input=x, weight=s.w, padding="same", dilation=2),
        lambda s, x: F.conv2d(x, s.w, None, 1, "valid"),
        lambda s, x: torch.conv2d(x, s.w, s.b, [2], [1], [1, 1]),
        lambda s, x: F.conv2d(x, s.g, s.b, groups=2),
        lambda s, x: torch.ops.aten.conv2d.default(x, s.w, s.b, [1, 1], [1, 1]),
        lambda s, x: F.conv2d(x, s.w * (s.w.abs() > 1), s.b),
        lambda s, x: F.conv2d(x, s.w.transpose(2, 3), s.b + 1),
    ],
)
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (4, 7, 6)])
def test_convolutions(forward, shape):
    graph = lifted(Held(forward, w=W, b=B, g=GROUPED), torch.randn(shape))
    assert kinds(graph) == [nn.Conv2d]
    assert not [n for n in graph.graph.nodes if n.op in ("get_attr", "call_function")]


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: F.linear(x, s.w),
        lambda s, x: F.linear(x, bias=s.b, weight=s.w),
        lambda s, x: x @ s.w.t() + s.b,
        lambda s, x: torch.matmul(x, s.w.T),
        lambda s, x: x.matmul(s.w.t()),
    ],
)
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 3, 4)])
def test_linear_layers(forward, shape):
    graph = lifted(Held(forward, w=torch.randn(6, 4), b=B), torch.randn(shape))
    assert kinds(graph) == [nn.Linear]


def test_addmm_is_a_linear_layer():
    graph = lifted(Held(lambda s, x: torch.addmm(s.b, x, s.w), w=torch.randn(4, 6), b=B), torch.randn(5, 4))
    assert kinds(graph) == [nn.Linear]


def functional_net(s: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = F.conv2d(x, s.conv_weight, None, padding=1)
    x = F.batch_norm(x, s.mean, s.var, s.gamma, s.beta, False, 0.1, 1e-3)
    x = F.max_pool2d(F.relu(x), 2)
    x = F.batch_norm(x, s.mean, s.var, weight=s.gamma, bias=s.beta)
    x = F.dropout(F.relu6(x), 0.5, training=False)
    x = F.adaptive_avg_pool2d(F.hardtanh(x, 0.0, 6.0), 1).flatten(1).relu_()
    return F.linear(x, s.fc_weight, s.b)


def make_net() -> Held:
    return Held(
        functional_net, conv_weight=W, fc_weight=torch.randn(6, 6), b=B, mean=torch.randn(6), var=torch.rand(6) + 0.5,
        gamma=torch.randn(6), beta=torch.randn(6),
    )  # fmt: skip


def test_a_network_written_functionally():
    model = make_net()
    graph = lifted(model, torch.randn(2, 4, 8, 8))
    assert kinds(graph) == [
        nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU6, nn.ReLU6, nn.AdaptiveAvgPool2d,
        nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert graph.get_submodule("conv").weight is model.conv_weight
    assert {n.split(".")[-1] for n, _ in graph.named_parameters()} == {"weight", "bias"}


def test_it_changes_nothing_twice_and_draws_no_random_numbers():
    torch.manual_seed(3)
    graph = fx.symbolic_trace(make_net())
    state = torch.get_rng_state()
    once = kinds(lift(graph))
    assert torch.equal(state, torch.get_rng_state())
    assert kinds(lift(graph)) == once


def _written_by_view(s, x):
    s.w.view(-1)[0:3].mul_(0.5)
    return F.conv2d(x, s.w)


def _written_before_a_product(s, x):
    mask = s.w * 2
    s.w.add_(0.0)
    return F.conv2d(x, mask)


def _written_with_the_input(s, x):
    s.w.add_(x.mean())
    return F.conv2d(x, s.w)


@pytest.mark.parametrize(
    "forward",
    [
        _written_by_view,
        _written_before_a_product,
        _written_with_the_input,
        lambda s, x: F.conv2d(x, F.relu_(s.w)),
        lambda s, x: F.conv2d(x, s.w * x.mean()),
        lambda s, x: F.conv2d(x, s.w, x.mean((0, 2, 3))[:1].expand(6)),
        lambda s, x: F.conv2d(x, F.dropout(s.w, 0.5, True)),
        lambda s, x: F.conv2d(x, s.w * torch.bernoulli(torch.ones_like(s.w) * s.w.sigmoid())),
        lambda s, x: F.conv2d(x, s.w, padding=(x.size(0), 1)),
    ],
)
def test_weights_that_may_change_stay_functional(forward):
    with torch.no_grad():
        graph = lift(fx.symbolic_trace(Held(forward, w=W.clone())))
        assert nn.Conv2d not in kinds(graph)
        state = torch.get_rng_state()
        want = Held(forward, w=W.clone())(torch.ones(1, 4, 5, 5))
        torch.set_rng_state(state)
        again = lift(fx.symbolic_trace(Held(forward, w=W.clone())))(torch.ones(1, 4, 5, 5))
    assert torch.equal(again, want)


def test_a_batch_norm_in_training_mode_or_on_rows_stays():
    training = Held(
        lambda s, x: F.batch_norm(F.conv2d(x, W), s.m, s.v, training=True), m=torch.zeros(6), v=torch.ones(6)
    )
    graph = lift(fx.symbolic_trace(training))
    assert nn.BatchNorm2d not in kinds(graph)
    rows = Held(lambda s, x: F.batch_norm(x, s.m, s.v), m=torch.zeros(6), v=torch.ones(6))
    assert kinds(lifted(rows, torch.randn(3, 6))) == []


def test_dropout_in_training_mode_stays():
    graph = lift(fx.symbolic_trace(Held(lambda s, x: F.dropout(F.linear(x, s.w), 0.5, True), w=torch.randn(3, 4))))
    assert F.dropout in {n.target for n in graph.graph.nodes}


def test_weights_read_from_a_module_that_is_called_too():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Linear(6, 4, bias=False)

        def forward(self, x):
            return F.linear(self.encode(x), self.encode.weight.t())

    model = Tied()
    graph = lifted(model, torch.randn(2, 6))
    assert kinds(graph) == [nn.Linear, nn.Linear]
    assert graph.get_submodule("encode").weight is model.encode.weight


def test_one_weight_in_two_calls():
    model = Held(
        lambda s, x: F.conv2d(F.conv2d(x, s.w, padding=1).relu(), s.w, padding="same"), w=torch.randn(4, 4, 3, 3)
    )
    graph = lifted(model, torch.randn(2, 4, 5, 5))
    assert kinds(graph) == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert len(list(graph.parameters())) == 1


def test_an_exported_program_can_be_lifted():
    program = torch.export.export(nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()).eval(), (torch.randn(1, 4, 6, 6),))
    module = program.module()
    x = torch.randn(1, 4, 6, 6)
    want = module(x)
    assert nn.Conv2d in kinds(lift(module))
    torch.testing.assert_close(module(x), want)


def test_constants_are_the_tensors_themselves():
    model = make_net()
    graph = fx.symbolic_trace(model)
    held = {id(t) for t in (*model.parameters(), *model.buffers())}
    values = constants(graph)
    assert values
    assert all(id(v) in held for v in values.values())
