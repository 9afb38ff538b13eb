"""A sweep whose driver is killed: its workers go with it, and the same command makes only what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from processes import alive, until
from running import BIN, ROOT, command, environment

GRID = ("--profile", "smoke", "--datasets", "digits:size=8", "--epochs", "1", "--fine-tune-epochs", "1")
CASES = ["jobs", "in process", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.mark.parametrize("how", CASES)
def test_a_killed_sweep_goes_on_where_it_was(how, tmp_path, sabotaged, request):
    from sabotage import calls

    tag = how.replace(" ", "")
    executor = {"jobs": ["--jobs", "2"], "in process": []}.get(how)
    if executor is None:
        executor = ["--executor", "ray", "--address", request.getfixturevalue("cluster").address]
    criteria = f"l1,sabotage:how=waits:tag={tag}"
    words = [str(BIN / "prunebench"), "sweep", *GRID, "--criteria", criteria, "--sparsities", "0.5"]
    words += ["--store", str(tmp_path / "store"), "--data", str(tmp_path), *executor]
    go = sabotaged / "go"
    go.unlink(missing_ok=True)
    sweep = subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting = until(lambda: calls(sabotaged, "waits", tag) and stored(tmp_path) == 2, sweep)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert waiting, "the dense parent and l1's cell are stored while the other waits"
    workers = {int(name.split("-")[1]) for name in calls(sabotaged, "waits", tag)}
    assert until(lambda: not any(alive(pid) for pid in workers)), "no worker outlives its driver"
    go.touch()
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "3 cells: 1 trained, 2 from the store, 0 failed" in again.stdout


def stored(folder: Path) -> int:
    return len(list((folder / "store" / "artifacts").glob("*/*/meta.json")))
