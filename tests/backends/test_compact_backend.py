"""The compact backend: smaller than the masked network, the same outputs, and another backend inside where asked."""

import copy

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import backends
from prunebench.backends import compact
from prunebench.engine import available
from prunebench.errors import UsageError
from prunebench.registry import check

X = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    ).eval()  # fmt: skip


@pytest.fixture
def pruned():
    model = net()
    pb.prune(model, 0.5, "l1", "layerwise", "filter")
    return model


@pytest.mark.parametrize("text", ["compact", "compact:backend=masked", "compact:backend=csr"])
def test_removed_filters_take_neither_memory_nor_change_the_output(pruned, text):
    if "csr" in text and available() is not None:
        pytest.skip(available())
    engine = pb.compile(pruned, X, text, threads=1)
    expected = copy.deepcopy(pruned).double()(X.double())
    torch.testing.assert_close(engine(X).double(), expected, rtol=1e-4, atol=1e-5)
    assert engine.threads == 1
    assert engine.report.widths == {"0": (16, 8), "3": (24, 12)}
    plain = pb.compile(pruned, X, text.partition("=")[2] or "dense", threads=1)
    if "csr" not in text:  # the engine has left the zeros out already
        assert engine.nbytes < 0.6 * plain.nbytes
        assert [row["shape"] for row in engine.summary()] == [(8, 3, 3, 3), (12, 8, 3, 3), (10, 48)]


def test_what_has_nothing_to_remove_runs_as_it_is(recwarn):
    model = net()
    engine = pb.compile(model, X, "compact", threads=1)
    assert engine.report.widths == {}
    assert engine.nbytes == pb.compile(model, X, "dense", threads=1).nbytes
    torch.testing.assert_close(engine(X), model(X))
    assert not recwarn.list


@pytest.mark.parametrize("faster", compact.LAYOUTS)
def test_the_layout_is_the_faster_one(faster, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(compact.time, "perf_counter", lambda: now[0])
    real = compact.backends.compile

    def timed(model, x, name, threads, layout):
        executor = real(model, x, name, threads, layout=layout)

        class Slow:
            chosen = layout

            def __call__(self, x):
                now[0] += 0.01 if layout == faster else 0.011
                return executor(x)

        return Slow()

    monkeypatch.setattr(compact.backends, "compile", timed)
    assert compact._faster(net(), X, 1).chosen == faster


def test_a_network_without_images_has_one_layout():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    pb.prune(model, 0.5, "l1", "layerwise", "filter")
    engine = pb.compile(model, torch.randn(4, 6), "compact", threads=1)
    assert engine.report.widths == {"0": (8, 4)}


@pytest.mark.parametrize("inner", ["compact", "none", "tensorrt"])
def test_an_inner_backend_that_can_not_be_is_refused_when_the_string_is_read(inner):
    with pytest.raises(UsageError, match="inside 'compact'") as error:
        check("backends", f"compact:backend={inner}")
    assert "dense" in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_always_there():
    assert backends.unavailable("compact") is None
