"""A sweep's progress, whatever runs its tasks: what is missing, in which order, how often a task is tried again.

A dense parent, the original of a twin and early weights that several cells rewind to are tasks of their own and come
first, so that they are trained once. A task whose worker dies is tried again on another; one that kills each of its
workers is given up, and the rest goes on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prunebench import pipeline
from prunebench.cell import Cell
from prunebench.errors import PrunebenchError
from prunebench.executors.base import Executor, Outcome, Task
from prunebench.executors.work import Mismatch, wait_for
from prunebench.pipeline import Lab

WAIT_SECONDS = 5.0
RETRIES = 2


class CellFailed(PrunebenchError, RuntimeError):
    """A cell can't be made; the message says why and how often it was tried."""


class SweepStopped(PrunebenchError, OSError):
    """Something that every cell needs is missing; the message says what and what to do."""


@dataclass
class Tally:
    """What a sweep came to: cells that were found stored, artifacts trained, cells failed or diverged with reasons."""

    stored: int = 0
    trained: int = 0
    failed: dict[Cell, str] = field(default_factory=dict)


def tasks_of(cells: Iterable[Cell], content_of: Callable[[Cell], str | None]) -> dict[str, Task]:
    """A task per artifact that the cells need, those they start from included and before them.

    content_of: the hash of a cell's data, part of every key.
    """
    tasks: dict[str, Task] = {}

    def add(cell: Cell) -> str:
        content = content_of(cell)
        key = pipeline.key_of(cell, content)
        if key not in tasks:
            needs = [add(parent) for parent in pipeline.parents(cell)]
            if (early := pipeline.early_key(cell, content)) is not None:
                tasks.setdefault(early, Task(early, cell, early=True))
                needs.append(early)
            tasks[key] = Task(key, cell, tuple(needs))
        return key

    for cell in cells:
        add(cell)
    return tasks


def sweep(
    cells: Sequence[Cell],
    lab: Lab,
    executor: Executor,
    retries: int = RETRIES,
    waits: Callable[[int], None] | None = None,
) -> Tally:
    """Have an executor make what the store lacks of the cells' artifacts; returns what came of it.

    retries: further tries of a task whose worker died or that met something unforeseen. waits: told now and then how
    many tasks are under way. lab.said and lab.failed hear of every end. Raises SweepStopped where no cell could be
    made; what was finished is stored, so the same call goes on from there.
    """
    tasks = tasks_of(cells, lab.content)
    run = _Run(tasks, lab, executor, retries)
    for task in tasks.values():
        stored = lab.store.peek(task.key)
        if stored is not None:
            run.tally.stored += not task.early
            run.settle(task, stored["status"], stored.get("reason") or "")
    run.begin()
    while run.under_way:
        outcomes = executor.finished(WAIT_SECONDS)
        for outcome in outcomes:
            run.take(outcome)
        if not outcomes and waits:
            waits(len(run.under_way))
    return run.tally


class _Run:
    def __init__(self, tasks: dict[str, Task], lab: Lab, executor: Executor, retries: int) -> None:
        self.tasks, self.lab, self.executor, self.retries = tasks, lab, executor, retries
        self.tally = Tally()
        self.under_way: set[str] = set()
        self._ended: set[str] = set()
        self._tries: Counter[str] = Counter()
        self._lacks = {key: set(task.needs) for key, task in tasks.items()}
        self._waiting = defaultdict(list)
        for key, task in tasks.items():
            for need in task.needs:
                self._waiting[need].append(key)

    def begin(self) -> None:
        """Submit what needs nothing more; the rest follows as tasks end."""
        for key, task in self.tasks.items():
            if key not in self._ended and not self._lacks[key]:
                self._submit(task)

    def take(self, outcome: Outcome) -> None:
        """An outcome: another try, the end of the sweep, or the task's end."""
        task = self.tasks[outcome.key]
        self.under_way.discard(task.key)
        self._tries[task.key] += 1
        for cell, made in outcome.made:
            self.tally.trained += 1
            if self.lab.said:
                self.lab.said(cell, made)
        if outcome.again and self._tries[task.key] <= self.retries:
            self._submit(task)
        elif outcome.stop:
            raise SweepStopped(outcome.reason)
        elif outcome.status in ("failed", "died"):
            self._give_up(task, outcome.reason)
        else:
            self._check_seen(task)
            self.tally.stored += not outcome.made and not task.early
            for key in self.settle(task, outcome.status, outcome.reason):
                self._submit(self.tasks[key])

    def settle(self, task: Task, status: str, reason: str) -> list[str]:
        """A task's artifact is in the store; returns the keys of tasks that now may start."""
        self._ended.add(task.key)
        if status != "ok" and not task.early:
            self.tally.failed[task.cell] = reason
        ready = []
        for key in self._waiting[task.key]:
            self._lacks[key].discard(task.key)
            if not self._lacks[key] and key not in self._ended and key not in self.under_way:
                ready.append(key)
        return ready

    def _submit(self, task: Task) -> None:
        self.under_way.add(task.key)
        self.executor.submit(task)

    def _give_up(self, task: Task, reason: str) -> None:
        tries = self._tries[task.key]
        self._fail(task, reason + (f"; tried {tries} times" if tries > 1 else ""))
        lost = self._dependants(task.key)
        for key in lost:
            self._ended.add(key)
            self.tally.failed[self.tasks[key].cell] = f"it starts from {task.cell.id}, which failed"
        if lost and self.lab.failed:
            self.lab.failed(task.cell, CellFailed(f"{len(lost)} cells that start from it are left out"))

    def _fail(self, task: Task, reason: str) -> None:
        self._ended.add(task.key)
        self.tally.failed[task.cell] = reason
        if self.lab.failed:
            self.lab.failed(task.cell, CellFailed(reason))

    def _dependants(self, key: str) -> list[str]:
        found: dict[str, None] = {}
        reach = [key]
        while reach:
            for child in self._waiting[reach.pop()]:
                if child not in found and child not in self._ended:
                    found[child] = None
                    reach.append(child)
        return list(found)

    def _check_seen(self, task: Task) -> None:
        # A worker that stores elsewhere would otherwise be believed.
        try:
            wait_for(Task(task.key, task.cell, (task.key,)), self.lab)
        except Mismatch:
            raise SweepStopped(
                f"{task.cell.id} was made, but not in the store at {self.lab.store.place}; name a folder that all "
                "nodes share, or a URL, with --store"
            ) from None
