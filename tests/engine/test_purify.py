"""In-place operations taken out of a traced model: same results, or a refusal where a view would notice."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.purify import purify
from prunebench.engine.tracing import trace


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f, self.relu, self.up = f, nn.ReLU(inplace=True), nn.Hardswish(inplace=True)

    def forward(self, x):
        return self.f(self, x * 1.0)


def iadd(m, x):
    y = x.sigmoid()
    y += x
    y -= 0.5
    y *= x
    y /= 2.0
    return y + x


def read_before_and_after(m, x):
    before = x + 1
    x.relu_()
    return before * x


def chain(m, x):
    return m.up(m.relu(x).add_(1)).mul_(2).sub_(x)


def functions(m, x):
    return F.relu_(x - 1) + F.relu(x, inplace=True) + F.hardswish(x, True) + torch.relu_(x - 0.1)


def silent(m, x):
    """The result isn't used: the change is."""
    x.clamp_(-0.5, 0.5)
    m.relu(x)
    x.neg_()
    return x


def two_names(m, x):
    y = x
    y += 1
    return x * y


PURE = [iadd, read_before_and_after, chain, functions, silent, two_names]
INPLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, F.relu_, torch.relu_}


def graph_of(f) -> tuple[Function, fx.GraphModule]:
    model = Function(f).eval()
    return model, trace(copy.deepcopy(model))


@pytest.mark.parametrize("f", PURE, ids=lambda f: f.__name__)
def test_pure_graphs_compute_the_same(f):
    model, graph = graph_of(f)
    assert purify(graph)
    x = torch.randn(2, 3, 4, 4)
    want = model(x.clone())
    kept = x.clone()
    assert torch.equal(graph(x), want)
    assert torch.equal(x, kept)
    for node in graph.graph.nodes:
        assert node.target not in INPLACE
        assert not (node.op == "call_method" and str(node.target).endswith("_"))
        assert not node.kwargs.get("inplace")
    assert not any(getattr(m, "inplace", False) for m in graph.modules())


@pytest.mark.parametrize("f", PURE, ids=lambda f: f.__name__)
def test_order_no_longer_matters(f):
    """Interpreted from the outputs backwards (only what is needed, when it is needed) it's still the same."""
    model, graph = graph_of(f)
    purify(graph)
    x = torch.randn(2, 3, 4, 4)
    known = {}

    def value(node):
        if isinstance(node, fx.Node) and node not in known:
            if node.op == "placeholder":
                return x
            args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
            if node.op == "call_module":
                known[node] = graph.get_submodule(node.target)(*args)
            elif node.op == "call_method":
                known[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            else:
                known[node] = node.target(*args, **kwargs)
        return known[node]

    end = next(n for n in graph.graph.nodes if n.op == "output")
    assert torch.equal(value(end.args[0]), model(x.clone()))


def through_a_view(m, x):
    y = x.view(2, -1)
    x += 1
    return y.sum() + x


def through_a_part(m, x):
    y = x.narrow(1, 0, 1)
    y.mul_(3)
    return x + 1


def through_a_slice(m, x):
    y = x[:, :1]
    y += 1
    return x * 2


def through_identity(m, x):
    y = x.contiguous()
    x.relu_()
    return y + x


@pytest.mark.parametrize(
    "f", [through_a_view, through_a_part, through_a_slice, through_identity], ids=lambda f: f.__name__
)
def test_changes_that_a_view_sees_are_refused(f):
    _, graph = graph_of(f)
    with pytest.raises(ValueError, match="in place"):
        purify(graph)


def a_view_nobody_reads_later(m, x):
    y = x.view(2, -1).sum()
    x += 1
    return x + y


def a_copy(m, x):
    y = x.clone()
    x += 1
    return x + y


@pytest.mark.parametrize("f", [a_view_nobody_reads_later, a_copy], ids=lambda f: f.__name__)
def test_harmless_views(f):
    model, graph = graph_of(f)
    assert purify(graph)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(graph(x), model(x.clone()))


def fills(m, x):
    x.fill_(3)
    return x * 2


def writes_out(m, x):
    y = x * 1
    torch.add(x, 1, out=y)
    return y


@pytest.mark.parametrize("f", [fills, writes_out], ids=lambda f: f.__name__)
def test_what_it_does_not_know_stays_and_is_told(f):
    model, graph = graph_of(f)
    assert not purify(graph)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(graph(x), model(x.clone()))
