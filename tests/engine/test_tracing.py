"""Tracing leaves other threads alone, and keeps in-place operators as they are."""

from __future__ import annotations

import operator
import threading

import pytest
import torch
from torch import nn

from prunebench.engine.tracing import trace


class Inplace(nn.Module):
    def forward(self, x):
        y = x.relu()
        z = y
        y += 1
        y -= x
        y *= 2
        y /= 3
        return y + z


def test_in_place_operators_stay_in_place():
    graph = trace(Inplace())
    targets = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert targets == [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.add]
    x = torch.randn(3)
    assert torch.equal(graph(x), Inplace()(x))


class Meanwhile(nn.Module):
    """Runs something in another thread while it is traced."""

    def __init__(self, work):
        super().__init__()
        self.work, self.conv = work, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        thread = threading.Thread(target=self.work)
        thread.start()
        thread.join()
        return self.conv(x)


def test_modules_called_by_another_thread_run_as_they_are():
    found = []
    other = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    x = torch.randn(1, 2, 4, 4)
    want = other(x)

    def work():
        found.append(other(x))
        found.append(other[0].weight)

    graph = trace(Meanwhile(work))
    assert type(found[0]) is torch.Tensor
    assert torch.equal(found[0], want)
    assert found[1] is other[0].weight
    assert [n.op for n in graph.graph.nodes] == ["placeholder", "call_module", "output"]


def test_the_traced_model_itself_used_by_another_thread():
    found = []
    x = torch.randn(1, 2, 4, 4)
    model = Meanwhile(lambda: found.append(model.conv(x)))
    want = model.conv(x)
    graph = trace(model)
    assert torch.equal(found[0], want)
    assert len([n for n in graph.graph.nodes if n.op == "call_module"]) == 1


def test_traces_beside_each_other():
    models = [nn.Sequential(*[nn.Linear(3, 3) for _ in range(2 + i)]) for i in range(6)]
    graphs = {}
    x = torch.randn(2, 3)
    threads = [threading.Thread(target=lambda i=i: graphs.update({i: trace(models[i])})) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, model in enumerate(models):
        assert torch.equal(graphs[i](x), model(x))
        assert len([n for n in graphs[i].graph.nodes if n.op == "call_module"]) == 2 + i


class Depends(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_after_a_failed_trace_modules_are_whole_again():
    with pytest.raises(Exception, match="control flow"):
        trace(Depends())
    linear = nn.Linear(2, 2)
    assert type(linear(torch.zeros(1, 2))) is torch.Tensor
    assert trace(nn.Sequential(linear))(torch.zeros(1, 2)).shape == (1, 2)
