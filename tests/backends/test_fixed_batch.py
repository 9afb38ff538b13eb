"""Backends compiled for one batch size: other sizes in parts, refusals in one line, the limit of compilation."""

import signal
import time

import pytest
import torch
from torch import nn

from prunebench.backends import torch_compile
from prunebench.backends.fixed_batch import FixedBatchExecutor
from prunebench.backends.torch_jit import TorchJitExecutor
from prunebench.errors import BackendUnavailable, UsageError


class Recorder(FixedBatchExecutor):
    """Eager, noting the shapes it is run with."""

    name = "recorder"

    def build(self, model, example):
        self.shapes = []

        def run(x):
            self.shapes.append(tuple(x.shape))
            assert x.is_contiguous()
            return model(x)

        return run


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_other_batches_go_through_in_parts(size, parts):
    model = nn.Linear(6, 3).eval()
    engine = Recorder(model, torch.randn(4, 6))
    x = torch.randn(size, 6)
    torch.testing.assert_close(engine(x), model(x))
    assert engine.shapes == [(4, 6)] * parts


def test_samples_of_another_shape_are_refused():
    engine = Recorder(nn.Linear(6, 3).eval(), torch.randn(4, 6))
    for x in (torch.randn(4, 5), torch.randn(0, 6)):
        with pytest.raises(UsageError, match="compiled for"):
            engine(x)


def test_it_holds_a_copy():
    model = nn.Linear(6, 3).eval()
    x = torch.randn(4, 6)
    engine = Recorder(model, x)
    before = engine(x)
    model.weight.data.zero_()
    assert torch.equal(engine(x), before)
    assert engine.nbytes == 4 * (18 + 3)
    assert engine.summary()[0]["sparsity"] == 0.0


def test_what_can_not_be_traced_is_one_line():
    class Odd(nn.Module):
        def forward(self, x):
            raise RuntimeError("two\nlines")

    with pytest.raises(BackendUnavailable, match=r"torch\.jit can't take this model") as error:
        TorchJitExecutor(Odd(), torch.randn(1, 2))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no POSIX timers")
def test_a_compilation_without_end_is_given_up(monkeypatch):
    def forever(model, **options):
        def call(x):
            while True:
                try:
                    time.sleep(0.01)
                except Exception:  # what a compiler does with errors of its own
                    continue

        return call

    monkeypatch.setattr(torch, "compile", forever)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(BackendUnavailable, match=r"torch.compile took more than 0.1 s"):
        torch_compile.TorchCompileExecutor(nn.Linear(2, 2).eval(), torch.randn(1, 2), limit=0.1)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
