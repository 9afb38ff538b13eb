"""The kernels with each array right before, then right behind, memory that can't be touched, on every kernel set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench.engine import available
from prunebench.engine.native_loader import native

GUARDED = Path(__file__).resolve().parent.parent / "guarded.py"
pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")
ISAS = [] if available() is not None else native().isas()


def run(*words: str, without: tuple[str, ...] = ("PRUNEBENCH_ISA",)) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in without}
    # Where the tests find prunebench, the child does too.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-X", "faulthandler", str(GUARDED), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.parametrize("what", ["csr", pytest.param("engine", marks=pytest.mark.slow)])
def test_nothing_is_read_or_written_outside(what):
    done = run(what, *ISAS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [word for isa in ISAS for word in (isa, "right")]


@pytest.mark.parametrize("what", ["overrun", "underrun"])
def test_the_guards_guard(what):
    done = run(what, without=("PRUNEBENCH_ISA", "LD_PRELOAD"))  # a sanitizer would take it for a finding
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS), done.stdout
    assert "right" not in done.stdout
