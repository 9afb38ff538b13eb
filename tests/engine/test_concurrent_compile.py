"""Compiling in several threads at once, and beside threads that run models; each in a process of its own.

torch.fx puts its own __call__ into nn.Module while it traces: another thread's calls then end up in the trace, and two
traces that overlap leave it there for good.
"""

from __future__ import annotations

import sys
import textwrap

import pytest
from running import ROOT, command

from prunebench.engine import available

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")

STORIES = {
    "several threads compile": """
        models = [Net(6), Net(7, width=12), Net(6)]
        xs = [images(n) for n in (1, 4, 17)]
        wants = [[reference(m, x) for x in xs] for m in models]
        def loop(i):
            def work():
                for k in range(8):
                    which = i if k % 2 else 0
                    engine = build(models[which], n=1 + k, threads=1 + k % 2)
                    for x, want in zip(xs, wants[which]):
                        assert right(engine(x), want), f"thread {i}, engine {k}"
            return work
        at_once(loop(0), loop(1), loop(2))
    """,
    "an engine runs while another is compiled": """
        model, other = Net(8), Net(9)
        engine, x, done = build(model), images(5), threading.Event()
        want, other_want = reference(model, x), reference(other, x)
        def compiles():
            try:
                for _ in range(25):
                    made = build(other)
                    assert right(made(x), other_want)
                    assert made.summary()[0]["kernel"] == kernel, "a slower form, because another thread ran"
            finally:
                done.set()
        def runs():
            while not done.is_set():
                assert right(engine(x), want)
        kernel = build(other).summary()[0]["kernel"]
        at_once(compiles, runs, runs)
    """,
    "a torch model runs while an engine is compiled": """
        model, other = Net(8), Net(9)
        x, done = images(5), threading.Event()
        want, other_want = reference(model, x), reference(other, x)
        def compiles():
            try:
                for _ in range(25):
                    assert right(build(other)(x), other_want)
            finally:
                done.set()
        def runs():
            while not done.is_set():
                assert right(model(x), want)
        at_once(compiles, runs)
    """,
}


@pytest.mark.parametrize("story", STORIES)
def test_compiling(story):
    code = f"""
import sys, threading
import torch
torch.set_num_threads(1)
sys.path.insert(0, {str(ROOT / "tests")!r})
from stressing import Net, at_once, build, images, reference, right
before = torch.nn.Module.__call__
{textwrap.dedent(STORIES[story])}
assert torch.nn.Module.__call__ is before, "nn.Module.__call__ stays patched"
print("the end")
"""
    done = command(sys.executable, "-c", code, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the end\n"
