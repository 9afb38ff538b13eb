"""--isolate with real poison: what a plugin breaks becomes its case's status, and the next case is measured."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ending import gone
from running import ROOT, command, environment, prunebench

from prunebench.runs import read_run
from prunebench.tables.grid import detail, frame, main_table

PLUGINS = """
import ctypes, os, signal, sys, time
import torch
import prunebench as pb
from prunebench.backends.dense import DenseExecutor

pytest_plugins = ("prunebench.pytest_plugin",)

def leak():
    held = []
    while True:
        held.append(torch.ones(1 << 22))  # 16 MB, touched

def leave():
    # Once a process: children that outlive it, half of them in sessions of their own.
    if os.path.exists(mine := f"left-{os.getpid()}"):
        return
    for n in range(20):
        if os.fork() == 0:
            if n % 2:
                os.setsid()
            with open(mine, "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(600)
            os._exit(0)

def babble():
    # What is no answer, into every pipe that there is.
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(number, b'{"facts": 3}\\n')
        except OSError:
            pass

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__()
        self.what = lambda: 0  # can't be pickled

    def __str__(self):
        return "line one\\n\\x1b[31mred\\x1b[0m" + "y" * 200_000

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def odd():
    raise Odd(1, 2)

def mute():
    raise Mute

def stubborn():
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    time.sleep(3600)

POISONS = {"leaving": leave, "babbling": babble, "odd": odd, "mute": mute, "stubborn": stubborn,
           "leaving_ill": lambda: (leave(), ctypes.string_at(0)), "sysexit": lambda: sys.exit(0),
           "group": lambda: os.killpg(0, signal.SIGKILL), "parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
           "leaking": leak, "sleeping": lambda: time.sleep(3600), "crashing": lambda: ctypes.string_at(0),
           "exiting": lambda: os._exit(7), "asking": lambda: torch.empty(1 << 60)}

def add(name, poison):
    @pb.criterion(name)
    def criterion(layer):
        poison()
        return layer.weight.abs()

    @pb.backend(name)
    class Backend(DenseExecutor):
        def __call__(self, x):
            poison()
            return super().__call__(x)

for name, poison in POISONS.items():
    add(name, poison)

@pb.backend("healthy")
class Healthy(DenseExecutor):
    def __call__(self, x):
        import torch
        return super().__call__(x)
"""
GRID = ("--datasets", "digits:size=8", "--models", "lenet300", "--epochs", "1", "--fine-tune-epochs", "1",
        "--profile", "smoke", "--sparsities", "0.5", "--batch-sizes", "4")  # fmt: skip
SECONDS = "15"  # a case takes half a second, but the machine may be busy with others
LIMITS = ("--isolate", "--isolate-memory", "1.5GB")
STATUSES = {"leaking": "oom", "sleeping": "timeout", "crashing": "failed", "exiting": "failed", "asking": "oom"}
REASONS = {
    "leaking": r"held 1\.\d+ GB of memory, more than the 1\.50 GB allowed",
    "sleeping": rf"gave no answer within {SECONDS} s",
    "crashing": "its process was ended by SIGSEGV",
    "exiting": "its process ended with exit code 7",
    "asking": "can't allocate memory",
}

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture
def project(tmp_path):
    """A folder that pytest takes for a project of its own, with poison in its conftest.py."""
    (tmp_path / "conftest.py").write_text(PLUGINS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "test_grid.py", tmp_path / "benchmarks")
    return tmp_path


def grid_of(folder, *arguments):
    places = ["--store", folder / "store", f"--benchmark-storage=file://{folder}/runs"]
    words = [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", *GRID, *places, *arguments]
    return list(map(str, words))


def finished(folder, *arguments):
    """(facts by criterion and backend, the run, what pytest printed)"""
    done = command(*grid_of(folder, *arguments, "--benchmark-save=poisoned"), cwd=folder, timeout=280)
    files = list((folder / "runs").rglob("*_poisoned.json"))
    assert len(files) == 1, done.stdout + done.stderr
    run = read_run(files[0])
    return {(f["cell"]["criterion"], f["backend"]): f for f in run.facts}, run, done.stdout


@linux
@pytest.mark.slow
def test_poisoned_criteria_cost_their_own_cases_alone(project):
    names = ["crashing", "leaking", "exiting", "asking", "l1"]
    facts, run, printed = finished(project, *LIMITS, "--criteria", ",".join(names), "--backends", "dense,masked")
    assert len(facts) == 2 * (1 + len(names))
    for name in names[:-1]:
        for backend in ("dense", "masked"):
            assert facts[name, backend]["status"] == STATUSES[name], facts[name, backend]
            assert re.search(REASONS[name], facts[name, backend]["reason"])
            assert facts[name, backend]["accuracy"] is None
        # Its checkpoint is not tried again for the second backend.
        assert "could not be made" in facts[name, "masked"]["reason"]
    for healthy in (("none", "dense"), ("none", "masked"), ("l1", "dense"), ("l1", "masked")):
        assert facts[healthy]["status"] == "ok"
    assert "8 failed, 4 passed" in printed
    assert "2 checkpoints trained" in printed
    table = main_table(detail(frame([run])), run.machine["id"], 1)
    for name in names[:-1]:
        (row,) = table[table["pruned by"].str.startswith(name)].to_dict("records")
        assert (row["dense"], row["masked"]) == (STATUSES[name], STATUSES[name])


@linux
@pytest.mark.slow
def test_poisoned_backends_cost_their_own_cases_alone(project):
    names = ["sleeping", "crashing", "leaking", "exiting", "asking", "healthy"]
    limits = (*LIMITS, "--isolate-seconds", SECONDS)
    control = ("--criteria", "l1", "--sparsities", "0")
    facts, _, printed = finished(project, *limits, *control, "--backends", ",".join(names))
    for name in names[:-1]:
        assert facts["none", name]["status"] == STATUSES[name], facts["none", name]
        assert re.search(REASONS[name], facts["none", name]["reason"])
    assert facts["none", "healthy"]["status"] == "ok"
    assert "5 failed, 1 passed" in printed
    assert "1 checkpoints trained" in printed  # every case read what the first one had made


@linux
@pytest.mark.slow
def test_nothing_a_case_started_outlives_it(project):
    names = ["leaving", "leaving_ill", "healthy"]
    facts, _, _ = finished(project, "--isolate", "--criteria", "l1", "--sparsities", "0", "--backends", ",".join(names))
    assert [facts["none", name]["status"] for name in names] == ["ok", "failed", "ok"]
    left = [int(pid) for file in project.glob("left-*") for pid in file.read_text().split()]
    assert len(left) >= 20
    assert all(gone(pid, 1.0) for pid in left)


@linux
@pytest.mark.slow
def test_odd_ends_are_statuses_with_plain_words(project):
    reasons = {
        "odd": r"^Odd: line one .\[31mred.\[0my{400,500}…$",
        "mute": "^Mute: .no words",
        "babbling": "no answer",
        "sysexit": "ended with exit code 0",
        "group": "was ended by SIGKILL",
        "parent": "was ended by SIGKILL",
        "stubborn": f"within {SECONDS} s",
    }
    limits = ("--isolate", "--isolate-seconds", SECONDS, "--criteria", "l1", "--sparsities", "0")
    facts, _, printed = finished(project, *limits, "--backends", ",".join([*reasons, "healthy"]))
    for name, words in reasons.items():
        found = facts["none", name]
        assert found["status"] == ("timeout" if name == "stubborn" else "failed")
        assert re.search(words, found["reason"]), found["reason"]
    assert facts["none", "healthy"]["status"] == "ok"
    assert "\x1b" not in printed


@pytest.mark.slow
def test_a_hanging_training_is_a_timeout_that_is_waited_for_once(project):
    limits = ("--isolate", "--isolate-seconds", SECONDS, "--criteria", "sleeping", "--backends", "dense,masked")
    facts, _, printed = finished(project, *limits)
    assert [facts["sleeping", backend]["status"] for backend in ("dense", "masked")] == ["timeout", "timeout"]
    assert "could not be made" in facts["sleeping", "masked"]["reason"]
    assert "2 failed, 2 passed" in printed


@pytest.mark.slow
def test_one_cell_isolated(tmp_path):
    cell = ["run", "--store", tmp_path, "--dataset", "digits:size=8", "--epochs", "1", "--fine-tune-epochs", "1",
            "--backend", "dense", "--batch-size", "4", "--timing-seconds", "0"]  # fmt: skip
    done = prunebench(*cell, "--isolate")
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout
    assert "validation" in done.stderr  # progress is heard from the child
    if Path("/proc/self/stat").exists():
        small = prunebench(*cell, "--isolate-memory", "100MB")  # less than torch alone
        assert small.returncode == 1
        assert re.search(r"oom: its process held 0\.\d\d GB of memory, more than the 0\.10 GB allowed", small.stdout)
        assert "Traceback" not in small.stderr


@pytest.mark.slow
def test_an_isolated_history_is_the_childs_own(project):
    done = command(*grid_of(project, *LIMITS, "--criteria", "l1", "--backends", "healthy", "--benchmark-save=fine"),
                   cwd=project, timeout=280)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (project / "runs").rglob("*_fine.json")
    benchmarks = json.loads(file.read_text())["benchmarks"]
    assert len(benchmarks) == 2
    for benchmark in benchmarks:
        facts, stats = benchmark["extra_info"], benchmark["stats"]
        assert facts["status"] == "ok"
        assert stats["rounds"] >= 5
        assert stats["iterations"] >= 1
        assert 0 < stats["min"] <= stats["median"]
        # Both are the same call in the same process: apart by what a busy machine does, not by a pipe or a clock.
        assert 0.2 < stats["median"] / facts["latency_seconds"] < 5
        assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]


@linux
@pytest.mark.slow
def test_a_killed_parent_leaves_no_orphan(project):
    arguments = grid_of(project, "--isolate", "--criteria", "l1", "--sparsities", "0", "--backends", "sleeping")
    parent = subprocess.Popen(arguments, cwd=project, env=environment(), stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 200
        # The parent, the nursery, the case.
        while len(family := descendants(parent.pid)) < 2 and time.monotonic() < until and parent.poll() is None:
            time.sleep(0.1)
        assert len(family) == 2
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert all(gone(pid) for pid in family)


def descendants(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
