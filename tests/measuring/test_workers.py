"""A worker builds and times in its own process; dead, silent or orphaned, it costs one line and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ending import gone

from prunebench import timing
from prunebench.errors import BackendUnavailable
from prunebench.measuring.nursery import Nursery
from prunebench.measuring.workers import Worker, WorkerFailed

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

FACTORIES = """
import gc, os, subprocess, sys, time
from contextlib import contextmanager
from prunebench.errors import BackendUnavailable
from prunebench.measuring.serving import tell

@contextmanager
def sleeper(seconds=0.002):
    print("a library says something")
    facts = {"pid": os.getpid(), "isa": os.environ.get("PRUNEBENCH_ISA"), "input": sys.stdin.read()}
    yield (lambda: time.sleep(seconds)), facts

@contextmanager
def collector():
    yield (lambda: exec('raise RuntimeError("gc is on")' if gc.isenabled() else "")), {}

@contextmanager
def raises(kind):
    raise {"value": ValueError("line one\\nline two"), "off": BackendUnavailable("not today")}[kind]
    yield

@contextmanager
def leaves(code, at_once):
    print("why it went", file=sys.stderr)
    if at_once:
        os._exit(code)
    yield (lambda: os._exit(code)), {}

@contextmanager
def leaks(by_child):
    if by_child:
        held = "import time; x = b'x' * 400_000_000; time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", held])
        time.sleep(600)
    held = []
    while True:
        held.append(b"x" * 10_000_000)
    yield

@contextmanager
def asks():
    try:
        bytearray(1 << 62)
    except MemoryError as error:
        raise ValueError("in other words") from error
    yield

@contextmanager
def faults():
    import ctypes
    ctypes.string_at(0)
    yield

@contextmanager
def exits_under_a_child(note):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    with open(note, "w") as file:
        file.write(str(child))
    os._exit(4)
    yield

@contextmanager
def talks(times):
    for number in range(times):
        time.sleep(0.15)
        tell(number=number)
    yield (lambda: None), {}

@contextmanager
def parent():
    child = subprocess.Popen(["sleep", "600"])
    yield (lambda: None), {"child": child.pid}
"""


@pytest.fixture(scope="module")
def nursery():
    """One process that workers are forked from; their modules are the worker's own to find."""
    found = Nursery()
    yield found
    found.close()


@pytest.fixture(params=["started", pytest.param("forked", marks=linux)])
def start(request, tmp_path, monkeypatch, nursery):
    """start(factory, timeout=…) -> Worker on a module of this test; all are closed after it, and one before the next.

    Whichever way it comes by its process, it does the same.
    """
    (tmp_path / "factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    started = []

    def begin(factory, **options):
        if request.param == "forked":
            if started:
                started[-1].close()
            # It has the environment of the nursery, which is started anew where a test changes it.
            nursery.close()
            options["nursery"] = nursery
        started.append(Worker(factory, f"factories:{factory}", **options))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def test_a_worker_times_in_its_own_process_under_the_same_environment(start, monkeypatch):
    monkeypatch.setenv("PRUNEBENCH_ISA", "scalar")
    worker = start("sleeper")
    worker.awake()
    facts = worker.prepare(seconds=0.02)
    # What a library prints, and reads, is kept from the pipes.
    assert facts == {"pid": worker.pid, "isa": "scalar", "input": ""}
    assert worker.pid != os.getpid()
    assert 0.02 <= worker.seconds_per_call(3) < 1.0
    assert 0.02 <= worker.seconds_per_call(1) < 1.0
    assert os.getpgid(worker.pid) == worker.pid  # an interrupt at the keyboard doesn't reach it


def test_the_loop_runs_without_the_garbage_collector(start):
    worker = start("collector")
    worker.prepare()
    assert worker.seconds_per_call(2) > 0


@linux
def test_an_idle_worker_sleeps(start):
    worker = start("sleeper")
    worker.prepare()
    worker.seconds_per_call(1)
    before = _ticks(worker.pid)
    time.sleep(0.5)
    state, ticks = _ticks(worker.pid)
    assert state == "S"
    assert ticks - before[1] <= 1


def _ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def test_what_is_raised_there_is_told_here(start):
    with pytest.raises(WorkerFailed, match=r"^ValueError: line one line two$") as caught:
        start("raises").prepare(kind="value")
    assert caught.value.worker == "raises"
    with pytest.raises(BackendUnavailable, match=r"^not today$"):
        start("raises").prepare(kind="off")
    with pytest.raises(WorkerFailed, match=r"^AttributeError: .*no_such"):
        start("no_such").prepare()
    with pytest.raises(WorkerFailed, match=r"^ModuleNotFoundError: .*no_module"):
        start("sleeper", modules=["no_module"]).prepare()


def test_a_worker_that_dies_is_one_line(start):
    message = r"^its process ended with exit code 3: why it went$"
    with pytest.raises(WorkerFailed, match=message):
        start("leaves").prepare(code=3, at_once=True)
    worker = start("leaves")
    worker.prepare(code=3, at_once=False)
    for _ in range(2):
        with pytest.raises(WorkerFailed, match=message):
            worker.seconds_per_call(1)


def test_a_worker_ended_from_outside_names_the_signal(start):
    worker = start("sleeper")
    worker.prepare()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="ended by SIGKILL, perhaps for lack of memory"):
        worker.seconds_per_call(1)


@linux
def test_a_worker_that_hangs_is_ended(start):
    worker = start("sleeper")
    worker.prepare(seconds=600)
    worker.timeout = 0.2
    with pytest.raises(WorkerFailed, match=r"^its process gave no answer within 0.2 s$") as caught:
        worker.seconds_per_call(1)
    assert caught.value.status == "timeout"
    assert gone(worker.pid)


@linux
@pytest.mark.parametrize("by_child", [False, True])
def test_a_worker_that_outgrows_its_memory_is_ended_with_its_children(start, by_child):
    worker = start("leaks", memory=300_000_000)
    with pytest.raises(
        WorkerFailed, match=r"^its process held 0.\d\d GB of memory, more than the 0.30 GB allow"
    ) as caught:
        worker.prepare(by_child=by_child)
    assert caught.value.status == "oom"
    assert gone(worker.pid)


def test_memory_that_is_refused_is_told_from_other_errors(start):
    with pytest.raises(WorkerFailed, match=r"^ValueError: in other words$") as caught:
        start("asks").prepare()
    assert caught.value.status == "oom"
    with pytest.raises(WorkerFailed) as caught:
        start("raises").prepare(kind="value")
    assert caught.value.status == "failed"


@linux
def test_a_crash_names_its_signal(start):
    with pytest.raises(WorkerFailed, match=r"^its process was ended by SIGSEGV") as caught:
        start("faults").prepare()
    assert caught.value.status == "failed"


@linux
def test_a_child_that_holds_the_pipe_open_hides_no_exit_and_is_ended(start, tmp_path):
    with pytest.raises(WorkerFailed, match=r"^its process ended with exit code 4$"):
        start("exits_under_a_child", memory=10**12).prepare(note=str(tmp_path / "child"))
    assert gone(int((tmp_path / "child").read_text()))


def test_what_a_worker_tells_is_heard_and_starts_its_time_anew(start):
    heard = []
    worker = start("talks", heard=heard.append)
    worker.awake()
    worker.timeout = 1.0
    worker.prepare(times=10)
    assert heard == [{"number": number} for number in range(10)]


def test_two_modules_of_one_name_are_told_apart_by_their_files(start, tmp_path):
    for folder, mark in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        text = f"import os; os.environ['PRUNEBENCH_ISA'] = os.environ.get('PRUNEBENCH_ISA', '') + '{mark}'"
        (tmp_path / folder / "twin.py").write_text(text)
    modules = [f"twin={tmp_path}/{folder}/twin.py" for folder in ("a", "b")]
    assert start("sleeper", modules=modules).prepare(seconds=0.0)["isa"].endswith("12")


@linux
def test_closing_ends_the_worker_and_what_it_started(start):
    worker = start("parent")
    child = worker.prepare()["child"]
    assert not gone(child, 0.1)
    worker.close()
    worker.close()
    assert gone(worker.pid)
    assert gone(child)
    with pytest.raises(WorkerFailed, match="has ended"):
        worker.seconds_per_call(1)


@linux
def test_a_nursery_that_died_is_started_anew(tmp_path, monkeypatch):
    (tmp_path / "factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    nursery = Nursery()
    try:
        with Worker("first", "factories:sleeper", nursery=nursery) as worker:
            worker.prepare()
            os.kill(os.getpgid(nursery._process.pid), signal.SIGKILL)
            with pytest.raises(WorkerFailed, match="SIGKILL"):
                worker.seconds_per_call(1)
        with Worker("second", "factories:sleeper", nursery=nursery) as worker:
            assert worker.prepare()["pid"] == worker.pid
    finally:
        nursery.close()
        assert nursery._process is None


ORPHANING = """
import json, sys, threading, time
sys.path[:] = json.loads(sys.argv[1])
from prunebench.measuring.nursery import Nursery
from prunebench.measuring.workers import Worker
idle, busy = Worker("idle", "factories:sleeper"), Worker("busy", "factories:sleeper")
idle.prepare()
busy.prepare(seconds=600)
starting, nursery = Worker("starting", "factories:sleeper"), Nursery()
forked = Worker("forked", "factories:sleeper", nursery=nursery)
busy._in.write(b'{"loops": 1}\\n')
print(json.dumps([idle.pid, busy.pid, starting.pid, nursery._process.pid, forked.pid]), flush=True)
time.sleep(600)
"""


@linux
def test_no_worker_outlives_a_killed_parent(start):
    parent = subprocess.Popen([sys.executable, "-c", ORPHANING, json.dumps(sys.path)], stdout=subprocess.PIPE)
    workers = json.loads(parent.stdout.readline())
    assert not any(gone(pid, 0.1) for pid in workers)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert [gone(pid) for pid in workers] == [True] * 5


def test_workers_and_callables_stand_in_the_same_blocks(start):
    worker = start("sleeper")
    worker.prepare(seconds=0.01)
    found = timing.compare({"dense": lambda: time.sleep(0.03), "worker": worker}, "dense", seconds=0.0)
    assert found["worker"].blocks == timing.MIN_BLOCKS
    assert 0.01 <= found["worker"].seconds < found["worker"].baseline_seconds
