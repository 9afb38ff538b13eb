"""Cases measured each in a process of its own, its training included: what one breaks costs that case alone.

A process that outgrows its memory, hangs or crashes gives a status (`oom`, `timeout`, `failed`) and a reason. How a
case is measured is the same as without: the child runs the same bench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prunebench import backends, machine, pipeline, registry
from prunebench.cell import Case, Cell
from prunebench.errors import BackendUnavailable, PrunebenchError
from prunebench.measuring.benches import bench_of, grid_bench
from prunebench.measuring.grid import Bench, Measured
from prunebench.measuring.nursery import Nursery, can_fork
from prunebench.measuring.plain_cases import case_of, plain
from prunebench.measuring.resident import killed_first
from prunebench.measuring.serving import tell
from prunebench.measuring.workers import Worker, WorkerFailed

if TYPE_CHECKING:
    from prunebench.measuring.limits import Limits
    from prunebench.pipeline import Lab

_FACTORY = "prunebench.measuring.isolated:built"
# What nearly every case imports: three seconds, paid once. Plugins of a user's own are the child's to import.
_PRELOADED = ("sklearn.datasets", "prunebench.measuring.isolated", "prunebench.pipeline.fine_tuning",
              "prunebench.training.loop", "prunebench.engine.compiler")  # fmt: skip


def isolated(bench: Any, question: str, limits: Limits | None) -> Any:
    """The bench itself without limits, else what stands for it."""
    return bench if limits is None else Isolated(bench, question, limits)


class Isolated:
    """Stands for a bench: the same facts, measured in a process per case; its lab hears of progress as before."""

    def __init__(self, bench: Any, question: str, limits: Limits) -> None:
        self.bench, self.question, self.limits = bench, question, limits
        self._nursery = Nursery(_PRELOADED) if can_fork() else None
        self._making: Cell | None = None
        self._lost: dict[Cell, tuple[str, str]] = {}  # checkpoints whose making ended a process

    def measure(self, case: Any) -> Measured:
        """As the bench's, but a case that is lost has its status and reason in the facts.

        Raises BackendUnavailable where its backend can't run here.
        """
        for cell in (*pipeline.parents(case.cell), case.cell) if isinstance(case, Case) else ():
            if cell in self._lost:  # another hour of hanging would tell nothing new
                status, reason = self._lost[cell]
                return self._without(case, status, f"{cell.id} could not be made: {reason}")
        self._making = None
        try:
            return self._measured(case)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, PrunebenchError):
                raise
            return self._without(case, "failed", f"its process answered what can't be ({type(error).__name__})")
        except WorkerFailed as error:
            if self._making is not None:
                self._lost[self._making] = (error.status, str(error))
            return self._without(case, error.status, str(error))

    def failed(self, case: Any, reason: str, status: str = "failed") -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        facts: dict[str, Any] = self.bench.failed(case, reason, status)
        return facts

    def close(self) -> None:
        """End the process that cases are forked from."""
        if self._nursery is not None:
            self._nursery.close()

    def _without(self, case: Any, status: str, reason: str) -> Measured:
        return Measured(self.failed(case, reason, status))

    def _measured(self, case: Any) -> Measured:
        limits = self.limits
        with Worker(
            case.id,
            _FACTORY,
            registry.local_modules(),
            timeout=limits.seconds,
            memory=limits.memory,
            heard=self._heard,
            nursery=self._nursery,
        ) as worker:
            try:
                found = worker.prepare(
                    question=self.question,
                    seconds=self.bench.timing_seconds,
                    lab=_plain(self.bench) if self.question == "grid" else None,
                    case=plain(case),
                )
            except BackendUnavailable as error:
                raise WorkerFailed(case.id, str(error)) from error
            if "off" in found:
                raise BackendUnavailable(f"backend {case.backend} is off: {found['off']}")
            if self.question == "grid":
                self._count(self.bench.lab, **found["counts"])
            measured = Measured(found["facts"], history_seconds=found["history_seconds"])
            if found["timed"]:
                rounds, calls = measured.history()
                worker.seconds_per_call(calls)
                measured.rounds = [calls * worker.seconds_per_call(calls) for _ in range(rounds)]
            return measured

    def _heard(self, told: dict[str, Any]) -> None:
        cell = None if told["cell"] is None else Cell.from_dict(told["cell"])
        if told["what"] == "making":
            self._making = cell
        elif told["what"] == "step" and self.bench.lab.tell:
            self.bench.lab.tell(cell, *told["steps"])
        elif told["what"] == "said":
            self.bench.lab.trained += 1
            if self.bench.lab.said:
                self.bench.lab.said(cell, SimpleNamespace(meta=told["meta"]))

    def _count(self, lab: Lab, reused: int, set_aside: int) -> None:
        lab.reused += reused
        lab.store.set_aside += set_aside


def _plain(bench: Bench) -> dict[str, Any]:
    lab = bench.lab
    return {
        "threads": bench.threads,
        "store": str(lab.store.root),
        "data": str(lab.data_root),
        "device": lab.device,
        "logs": None if lab.logs is None else str(lab.logs),
        "tensorboard": lab.tensorboard,
    }


@contextmanager
def built(
    question: str, seconds: float, lab: dict[str, Any] | None, case: dict[str, Any]
) -> Iterator[tuple[Callable[[], Any], dict[str, Any]]]:
    """In the child: the call that is timed further, and what was measured."""
    killed_first()
    one = case_of(question, case)
    off = backends.unavailable(one.backend)
    if off is not None:
        yield _nothing, {"off": off}
        return
    counts = {}
    if lab is None:
        measured = bench_of(question, seconds).measure(one)
    else:
        bench = grid_bench(seconds=seconds, **lab, tell=_step, said=_said)
        for cell in pipeline.to_make([one.cell], bench.lab):
            tell(what="making", cell=cell.as_dict())
            pipeline.artifact(cell, bench.lab)
        tell(what="making", cell=None)
        measured = bench.measure(one)
        counts = {"reused": bench.lab.reused, "set_aside": bench.lab.store.set_aside}
    timed = measured.call is not None
    facts = {"facts": measured.facts, "timed": timed, "history_seconds": measured.history_seconds, "counts": counts}
    with machine.threads(measured.facts["threads"]):
        yield measured.call or _nothing, facts


def _nothing() -> None:
    pass


def _step(cell: Cell, step: int, steps: int) -> None:
    tell(what="step", cell=cell.as_dict(), steps=(step, steps))


def _said(cell: Cell, made: Any) -> None:
    tell(what="said", cell=cell.as_dict(), meta={k: v for k, v in made.meta.items() if k != "prunings"})
