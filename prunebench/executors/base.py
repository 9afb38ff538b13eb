"""What runs a sweep's tasks: the executor's protocol, and the values that pass between it and who drives it.

An executor only runs tasks. Which task may start, which is tried again and which is given up is decided once, in
`driving`, so that it holds for every executor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prunebench.cell import Cell
from prunebench.pipeline import Lab
from prunebench.store import Artifact


@dataclass(frozen=True)
class Task:
    """One artifact to make, named by its key; making it twice changes nothing.

    needs: keys that must be in the store before. early: not the cell's own checkpoint but the early weights of its
    dense parent, which cells that rewind to an epoch share.
    """

    key: str
    cell: Cell
    needs: tuple[str, ...] = ()
    early: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a task ended. status: an artifact's own (`ok`, `diverged`), `failed`, or `died` where its worker did.

    made: what was trained on the way, without weights. again: another try may end otherwise. stop: so would every
    other task's, and the sweep ends with the reason.
    """

    key: str
    status: str
    reason: str = ""
    made: tuple[tuple[Cell, Artifact], ...] = ()
    again: bool = False
    stop: bool = False


class Executor(Protocol):
    """Three methods, and `slots`: how many tasks can run at once as things are, 0 where none can yet.

    needs: what a task takes, in words, where that can be lacking.
    """

    needs: str

    @property
    def slots(self) -> int: ...

    def submit(self, task: Task) -> None:
        """Queue a task; returns at once."""

    def finished(self, seconds: float) -> list[Outcome]:
        """What ended since the last call, waiting for the first up to so many seconds; may be empty."""

    def close(self) -> None:
        """End what still runs and let go of everything held; may be called twice."""


@dataclass(frozen=True)
class Place:
    """Where tasks run, in values that travel to other processes and machines: each worker builds its Lab from them.

    store: a folder or a URL; data, logs: folders; device: as asked for, each worker looks for its own GPU; cores: how
    many a worker may take, None for all.
    """

    store: str
    data: str
    device: str | None = None
    logs: str | None = None
    tensorboard: bool = False
    cores: int | None = None
    keep_seconds: float = Lab.keep_seconds

    def lab(self) -> Lab:
        """A Lab of this process; UsageError where the device or the store is not to be had here."""
        from prunebench import settings
        from prunebench.remote_store import open_store

        around = settings.training(self.device, self.logs, self.tensorboard)
        return Lab(open_store(self.store), Path(self.data), keep_seconds=self.keep_seconds, **around)
