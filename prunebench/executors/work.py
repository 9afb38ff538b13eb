"""What a worker does with a task, wherever it runs: make the artifact, and say how that ended instead of raising."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from prunebench import machine, pipeline
from prunebench.cell import Cell
from prunebench.errors import PluginError, PrunebenchError, reason
from prunebench.executors.base import Outcome, Place, Task
from prunebench.pipeline import Lab
from prunebench.store import Artifact, StoreError
from prunebench.store.locks import Busy

# What one node publishes, another may see late: NFS keeps what it knows of a folder for up to a minute.
APPEAR_SECONDS = 75.0
_TOLD = ("status", "reason", "validation_accuracy", "training_seconds", "collapse", "not_pruned", "device")


def work(task: Task, lab: Lab) -> Outcome:
    """Make a task's artifact unless the store holds it; raises nothing but Busy (see Lab.patient)."""
    made: list[tuple[Cell, Artifact]] = []

    def note(cell: Cell, artifact: Artifact) -> None:
        told = {name: artifact.meta[name] for name in _TOLD if name in artifact.meta}
        made.append((cell, Artifact(artifact.key, told, None)))

    def ended(status: str, why: str = "", **how: bool) -> Outcome:
        return Outcome(task.key, status, why, tuple(made), **how)

    before, lab.said = lab.said, note
    try:
        check_same(task, lab)
        wait_for(task, lab)
        return ended(*_make(task, lab))
    except Busy:
        raise
    except PluginError as error:
        return ended("failed", str(error))
    except StoreError as error:
        return ended("failed", str(error), again=True, stop=True)
    except PrunebenchError as error:
        return ended("failed", str(error), stop=True)
    except Exception as error:  # a bug, a full memory, a broken GPU: the other cells go on
        last = traceback.extract_tb(error.__traceback__)[-1]
        return ended("failed", f"{reason(error)} (in {last.name}, line {last.lineno})", again=True)
    finally:
        lab.said = before


def _make(task: Task, lab: Lab) -> tuple[str, str]:
    meta: Mapping[str, Any]
    if task.early:
        from prunebench.pipeline.rewinding import early_state

        early_state(task.cell, lab)
        meta = lab.store.peek(task.key) or {}
    else:
        meta = pipeline.artifact(task.cell, lab).meta
    return str(meta.get("status", "failed")), str(meta.get("reason") or "")


def check_same(task: Task, lab: Lab) -> None:
    """Mismatch unless this process would give the artifact the same key as the one that made the task."""
    if task.early:
        return  # those that need it are checked
    if pipeline.key_of(task.cell, lab.content(task.cell)) != task.key:
        raise Mismatch(
            f"this node would make another artifact of {task.cell.id}: its prunebench, its plugins or its data differ "
            "from those of the process that drives the sweep; install the same on every node"
        )


class Mismatch(PrunebenchError, RuntimeError):
    """A worker and the driver don't agree about what a task makes, or don't see the same store."""


def wait_for(task: Task, lab: Lab, seconds: float | None = None) -> None:
    """Return once the store shows what the task needs; Mismatch where it doesn't within so many seconds.

    Without this a worker that sees another folder would train every parent again, and nobody would notice.
    """
    until = time.monotonic() + (APPEAR_SECONDS if seconds is None else seconds)
    missing = list(task.needs)
    while missing := [key for key in missing if key not in lab.store]:
        if time.monotonic() > until:
            raise Mismatch(
                f"this node doesn't see {missing[0]}, which {task.cell.id} needs, in the store at {lab.store.place}; "
                "name a folder that all nodes share, or a URL, with --store"
            )
        time.sleep(0.2)


@cache
def _lab(place: Place) -> Lab:
    # One per process: datasets are loaded once and stay.
    if place.cores is not None:
        machine.limit_cores(place.cores)
    return place.lab()


def work_at(task: Task, place: Place) -> Outcome:
    """The same in a process that knows only the place."""
    try:
        lab = _lab(place)
    except PrunebenchError as error:
        return Outcome(task.key, "failed", f"{socket.gethostname()}: {error}", stop=True)
    outcome = work(task, lab)
    # What is wrong with a whole node is no use without its name.
    here = f"{socket.gethostname()}: "
    return replace(outcome, reason=here + outcome.reason) if outcome.stop else outcome
