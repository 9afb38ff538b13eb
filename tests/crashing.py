"""Grid runs killed at random moments, each a process of its own, forked from one that has imported torch already.

`python crashing.py FOLDER KILLS SEED` writes FOLDER/report.json: one undisturbed run, then for every kill what it left,
and what a second run made of it. Half of the kills come by the clock, half just before a change of the file system
(opening for writing, syncing, renaming, removing), of which publishing and saving are full and which take no time.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GRID = ["--profile", "smoke", "--datasets", "digits:size=8", "--backends", "dense", "--batch-sizes", "1", "--seeds",
        "0,1", "--epochs", "3", "--fine-tune-epochs", "3"]  # fmt: skip
CELLS = 4
ENTRY = re.compile(r"artifacts/../\w{32}/(meta.json|weights.safetensors)")
# What doesn't depend on how fast the machine was.
FACTS = ("status", "accuracy", "accuracy_dense", "relative_error", "nonzeros", "prunable", "parameters", "macs",
         "macs_dense", "disk_bytes", "dense_disk_bytes", "resident_bytes")  # fmt: skip


def forked(work: Callable[[], int], output: Path) -> int:
    """Runs work() in a child whose output goes into a file and whose exit code it is; returns the child's id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(child: int) -> int:
    """Of a child that ended: as a shell knows it, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def grid(folder: Path, name: str, killed_at: int = 0) -> int:
    """`pytest benchmarks` with its store and saved runs under a folder; SIGKILL before change number `killed_at`."""
    import pytest

    changes = watched(folder, killed_at)
    places = ["--store", f"{folder}/store", f"--benchmark-storage=file://{folder}/results/runs"]
    code = pytest.main(["benchmarks", "-p", "no:cacheprovider", *places, *GRID, f"--benchmark-save={name}"])
    Path(folder, "changes").write_text(str(changes()))
    return int(code)


def watched(folder: Path, killed_at: int) -> Callable[[], int]:
    """Counts the changes of the file system under a folder from now on, and dies just before one of them."""
    count = 0
    place = str(folder)

    def change() -> None:
        nonlocal count
        count += 1
        if count == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event in ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir") and place in str(arguments):
            change()

    def synced(handle: int, fsync: Callable[[int], None] = os.fsync) -> None:
        change()
        fsync(handle)

    sys.addaudithook(audit)
    os.fsync = synced
    return lambda: count


def facts(folder: Path, name: str) -> dict[str, Any]:
    """{case: what was measured but the timings} of a saved run."""
    from prunebench.facts import case_of
    from prunebench.runs import load_runs

    [run] = [r for r in load_runs(folder / "results" / "runs", [name]) if r.complete]
    return {case_of(f).id: {what: f[what] for what in FACTS} for f in run.facts}


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the table made from a saved run, without its timings."""
    from prunebench.runs import load_runs
    from prunebench.tables.grid import detail, frame

    rows = detail(frame([r for r in load_runs(folder / "results" / "runs", [name]) if r.complete]))
    columns = ["model", "criterion", "sparsity", "backend", "n", *(c for c in rows.columns if c in FACTS)]
    return json.loads(rows[columns].to_json(orient="records"))


def published(store: Any) -> dict[str, int]:
    """{key: when it was written} of every entry."""
    return {key: os.stat(store.path(key) / "meta.json").st_mtime_ns for key in store.keys()}  # noqa: SIM118


def one_kill(folder: Path, moment: float | int, reference: dict[str, Any]) -> dict[str, Any]:
    """A run killed at a moment (seconds, or the number of a change), what it left, and what a second run did."""
    from prunebench.runs import load_runs
    from prunebench.store import Store
    from prunebench.store.upkeep import clean, verify

    folder.mkdir()
    by_clock = isinstance(moment, float)
    child = forked(lambda: grid(folder, "first", 0 if by_clock else int(moment)), folder / "first.txt")
    if by_clock:
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    code = exit_code(child)
    store = Store(folder / "store")
    before = published(store)
    readable = [len(run.facts) for run in load_runs(folder / "results" / "runs")]
    unfinished = len(list(store.root.glob("unfinished/*.safetensors")))
    again = exit_code(forked(lambda: grid(folder, "again"), folder / "again.txt"))
    output = (folder / "again.txt").read_text()
    trained = re.search(r"prunebench: (\d+) checkpoints trained", output)
    after = published(store)
    troubles = [key for key, trouble in verify(store) if trouble]
    clean(store)
    left = [str(f.relative_to(store.root)) for f in store.root.rglob("*") if f.is_file()]
    return {
        "moment": moment,
        "first": code,
        "published": len(before),
        "unfinished": unfinished,
        "readable": readable,
        "again": again,
        "output": output if again else "",
        "trained": int(trained[1]) if trained else None,
        "rewritten": [key for key in before if after.get(key) != before[key]],
        "damaged": troubles,
        "left": [name for name in left if not ENTRY.fullmatch(name)],
        "same": again == 0 and facts(folder, "again") == reference,
        "table": table(folder, "again") if again == 0 else None,
    }


def prepare() -> None:
    """Import what a run needs, keep the state of a training after every epoch, and time as briefly as can be."""
    os.chdir(ROOT)
    import pandas  # noqa: F401
    import pytest_benchmark.plugin  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torch._dynamo  # with the first optimizer

    from prunebench import machine, pipeline, profiles, progress  # noqa: F401
    from prunebench.executors import driving  # noqa: F401 - reads Lab before it is replaced
    from prunebench.measuring import grid as measuring

    torch.set_num_threads(1)
    machine.cores = lambda: 1
    pipeline.Lab = functools.partial(pipeline.Lab, keep_seconds=0.0)
    profiles._file()["profiles"]["smoke"]["timing_seconds"] = 0.005
    measuring.Measured = functools.partial(measuring.Measured, history_seconds=0.01)


def main(folder: Path, kills: int, seed: int) -> None:
    prepare()
    draw = random.Random(seed)
    whole = folder / "whole"
    whole.mkdir()
    start = time.monotonic()
    code = exit_code(forked(lambda: grid(whole, "whole"), whole / "whole.txt"))
    seconds = time.monotonic() - start
    assert code == 0, (whole / "whole.txt").read_text()
    changes, reference = int((whole / "changes").read_text()), facts(whole, "whole")
    moments = [draw.uniform(0.1 * seconds, seconds) if n % 2 else draw.randint(1, changes) for n in range(kills)]
    found = [one_kill(folder / str(n), moment, reference) for n, moment in enumerate(moments)]
    report = {
        "seconds": seconds,
        "changes": changes,
        "facts": reference,
        "table": table(whole, "whole"),
        "kills": found,
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
