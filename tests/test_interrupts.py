"""Ctrl-C in the middle of the real commands: one line that says how to go on, exit code 130, a store that is whole."""

import signal
import subprocess
import sys
import time

from running import BIN, ROOT, TINY, environment, grid_command

from prunebench.runs import load_runs
from prunebench.settings import INTERRUPTED
from prunebench.store import Store
from prunebench.store.upkeep import clean, verify

LONG = ("--profile", "smoke", "--datasets", "digits:size=8", "--epochs", "3", "--fine-tune-epochs", "3")


def interrupted(command, until, timeout=120):
    """Starts a command, sends SIGINT once `until()` holds; returns exit code and all it wrote."""
    run = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + timeout
    while not until() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.poll() is None, run.communicate()[0]
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=timeout)
    return run.returncode, output


def stored(store, number):
    return lambda: len(list(store.keys())) >= number


def test_a_sweep_says_how_to_go_on(tmp_path):
    store = Store(tmp_path / "store")
    sweep = ("sweep", *LONG, "--seeds", ",".join(map(str, range(40))), "--store", store.root)
    code, output = interrupted([BIN / "prunebench", *sweep], stored(store, 2))
    assert code == 130, output
    assert output.splitlines()[-1] == f"prunebench: {INTERRUPTED}"
    assert "Traceback" not in output
    assert 2 <= len(list(store.keys())) < 80
    assert [trouble for _, trouble in verify(store) if trouble] == []
    assert clean(store) == []


def test_a_grid_run_keeps_what_was_measured(tmp_path):
    store = Store(tmp_path / "store")
    journals = tmp_path / "results" / "runs"
    seeds = ",".join(map(str, range(20)))
    command = grid_command(
        tmp_path, *TINY, "--backends", "dense", "--seeds", seeds, "--benchmark-save=stopped", python=sys.executable
    )
    code, output = interrupted(
        command, lambda: sum(len(f.read_text().splitlines()) for f in journals.rglob("*.jsonl")) >= 3
    )
    assert code == 130, output
    assert output.count(f"prunebench: {INTERRUPTED}") == 1
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output
    assert " passed" in output.splitlines()[-1]
    [run] = load_runs(journals, ["stopped"])
    assert run.complete
    assert 2 <= run.cases < 40
    assert not list(journals.rglob("*.jsonl"))
    assert [trouble for _, trouble in verify(store) if trouble] == []
