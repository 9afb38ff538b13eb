"""Tasks on this machine: one after another in this process, or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from multiprocessing.connection import Connection, wait
from typing import Any

from prunebench import machine
from prunebench.executors.base import Outcome, Place, Task
from prunebench.executors.work import work, work_at
from prunebench.pipeline import Lab
from prunebench.store.locks import Busy


class InProcess:
    """One task after another, here; each `finished` runs the next one to its end.

    What other processes on the same store are making is left for later, and waited for only once nothing else is left:
    several sweeps of one grid share it.
    """

    slots = 1
    needs = ""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def finished(self, seconds: float) -> list[Outcome]:
        for passed in range(len(self._queue) + 1):
            if not self._queue:
                break
            self._lab.patient = passed == len(self._queue)  # nothing came of a whole round: wait for the first
            task = self._queue.popleft()
            try:
                return [work(task, self._lab)]
            except Busy:
                self._queue.append(task)
            finally:
                self._lab.patient = True
        return []

    def close(self) -> None:
        self._queue.clear()


class Pool:
    """`jobs` processes, spawned anew, which share the cores; one that dies costs its own task and is replaced.

    concurrent.futures' pool is not used: there one dead worker breaks the pool, and every task in it is to blame.
    """

    needs = ""

    def __init__(self, place: Place, jobs: int) -> None:
        cores = max(1, machine.cores() // jobs)
        self._place = Place(**{**vars(place), "cores": cores})
        self.slots = jobs
        self._queue: deque[Task] = deque()
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Task]] = {}

    def submit(self, task: Task) -> None:
        self._queue.append(task)
        self._start()

    def finished(self, seconds: float) -> list[Outcome]:
        outcomes = []
        ready = wait(list(self._busy), seconds) if self._busy else []
        for pipe in [pipe for pipe in self._busy if pipe in ready]:
            worker, task = self._busy.pop(pipe)
            try:
                outcomes.append(worker.pipe.recv())
                self._idle.append(worker)
            except (EOFError, OSError):
                outcomes.append(Outcome(task.key, "died", worker.died(), again=True))
        self._start()
        return outcomes

    def close(self) -> None:
        self._queue.clear()
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.kill()
        self._idle, self._busy = [], {}

    def _start(self) -> None:
        while self._queue and len(self._busy) < self.slots:
            worker = self._idle.pop() if self._idle else _Worker(self._place)
            task = self._queue.popleft()
            worker.send(task)
            self._busy[worker.pipe] = worker, task


class _Worker:
    """A spawned process at the other end of a pipe."""

    def __init__(self, place: Place) -> None:
        # Forking a process that has torch's threads would copy their locks and not them.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, place), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, task: Task) -> None:
        # One that died idle is found dead where its answer is read.
        try:
            self.pipe.send(task)
        except OSError:
            return

    def died(self) -> str:
        """How it ended, in words; lets go of what is left of it."""
        self._process.join(5.0)
        code = self._process.exitcode
        self.kill()
        if code is None or code >= 0:
            return f"its process ended with exit code {code}" if code is not None else "its process closed its pipe"
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def serve(pipe: Connection, place: Place) -> None:
    """What a worker runs: a task, its outcome, and the next, until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to answer: it ends its workers
    driver: Any = multiprocessing.parent_process()

    def end_with_driver() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=end_with_driver, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(work_at(task, place))
