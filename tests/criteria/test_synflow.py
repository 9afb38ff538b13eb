"""SynFlow: what it scores, its rounds, and that no layer collapses where one-shot criteria lose one."""

import warnings

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.masks import LayerCollapseWarning, prunable_modules


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 200, bias=False), nn.ReLU(), nn.Linear(200, 4, bias=False),
    )  # fmt: skip


DATA = [(torch.zeros(2, 1, 6, 6), torch.zeros(2, dtype=torch.int64))]


def by_hand(model):
    """R's gradient the plain way: the weights themselves made absolute, in double precision."""
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data.abs_()
    model(torch.ones(1, 1, 6, 6, dtype=torch.float64)).sum().backward()
    return {n: (m.weight.grad * m.weight).detach() for n, m in prunable_modules(model).items()}


def test_it_is_the_weight_times_the_gradient_of_all_outputs_up_to_one_factor():
    model = net()
    found = criteria.score("synflow", model, prunable_modules(model), data=DATA)
    expected = by_hand(net())
    factor = expected["0.weight"].sum()
    for name, score in found.items():
        torch.testing.assert_close(score.double(), expected[name] / factor, rtol=1e-6, atol=1e-12)


def test_pb_prune_takes_a_hundred_rounds(monkeypatch):
    seen = []
    real = criteria.score

    def counting(text, model, modules, **more):
        seen.append(sum(int((m.weight != 0).sum()) for m in modules.values()))
        return real(text, model, modules, **more)

    monkeypatch.setattr(criteria, "score", counting)
    model = net()
    total = sum(m.weight.numel() for m in prunable_modules(model).values())
    pb.prune(model, 0.99, "synflow", data=DATA)
    assert len(seen) == 100
    assert all(found == pytest.approx(total * 0.01 ** (k / 100), abs=1) for k, found in enumerate(seen))


def test_a_hundred_rounds_keep_a_path_open_where_one_cuts_a_layer(registry_sandbox):
    @pb.criterion("hasty", needs=("synaptic_flow",))
    def hasty(layer):
        return layer.weight.abs() * layer.synaptic_flow

    with pytest.warns(LayerCollapseWarning):
        pb.prune(net(), 0.999, "hasty", data=DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerCollapseWarning)
        model = net()
        pb.prune(model, 0.999, "synflow", data=DATA)
    assert model.eval()(torch.rand(64, 1, 6, 6)).abs().sum() > 0


def test_a_schedule_spreads_the_rounds(monkeypatch):
    calls = []
    real = criteria.score
    monkeypatch.setattr(criteria, "score", lambda *a, **k: calls.append(1) or real(*a, **k))
    pruner = pb.Pruner(net(), 0.9, "synflow", schedule="linear", steps=4, data=DATA)
    found = []
    for _ in range(4):
        pruner.step()
        found.append(pruner.current_sparsity)
    assert found == pytest.approx([0.225, 0.45, 0.675, 0.9], abs=1e-4)
    assert 100 <= len(calls) <= 104
