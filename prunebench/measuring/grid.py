"""One case measured: compile for the backend, check against float64, accuracy, bytes, paired speed-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench import backends, formats, machine, pipeline
from prunebench.cell import Case, Cell
from prunebench.errors import UsageError
from prunebench.facts import facts_of
from prunebench.reference import Reference
from prunebench.timing import compare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset
    from prunebench.store import Artifact

BASELINES = {"dense": {}, "dense_channels_last": {"layout": "channels_last"}}


@dataclass
class Measured:
    """A case's facts, and the call that a benchmark may time further (None where there is nothing to time)."""

    facts: dict[str, Any]
    call: Callable[[], Any] | None = None
    history_seconds: float = 0.25
    rounds: list[float] | None = None  # seconds of each round of the history, where another process timed it

    def history(self) -> tuple[int, int]:
        """(rounds, calls in each) for pytest-benchmark's history: at least 5 rounds of about 5 ms."""
        seconds = max(self.facts["latency_seconds"], 1e-7)
        calls = max(1, round(0.005 / seconds))
        return int(min(50, max(5, self.history_seconds / (calls * seconds)))), calls


@dataclass
class Subject:
    """A cell's checkpoint with what is known of it, whichever backend and batch size it is measured with."""

    cell: Cell
    made: Artifact
    model: nn.Module
    disk_bytes: int
    costs: dict[str, int]
    references: dict[int, Reference] = field(default_factory=dict)  # by batch size

    def reference(self, data: Dataset, batch_size: int) -> Reference:
        """What the model computes in float64 for a batch."""
        if batch_size not in self.references:
            self.references[batch_size] = Reference(self.model, _batch(data, batch_size))
        return self.references[batch_size]


@dataclass
class Bench:
    """Measures cases one after another; keeps the last cell's subject, because its backends follow each other."""

    lab: pipeline.Lab
    threads: int = 1
    timing_seconds: float = 1.0
    _last: Subject | None = None
    _dense: dict[Cell, tuple[float, int]] = field(default_factory=dict)

    def measure(self, case: Case) -> Measured:
        """Everything about a case; raises CheckFailed where the backend's output is wrong, before any timing."""
        data = self.lab.data(case.cell.dataset)
        subject = self._subject(case.cell, data)
        if subject is None:
            meta = pipeline.artifact(case.cell, self.lab).meta
            return Measured(facts_of(case, self.threads, meta["status"], reason=meta["reason"]))
        dense_accuracy, dense_bytes = self._control(case.cell.control, data)
        with machine.threads(self.threads):
            right = subject.reference(data, case.batch_size)
            engine = backends.compile(subject.model, right.x, case.backend, self.threads)
            values = {
                "relative_error": right.check(engine, case.id),
                "accuracy": _accuracy(engine, data),
                "accuracy_dense": dense_accuracy,
                "disk_bytes": subject.disk_bytes,
                "dense_disk_bytes": dense_bytes,
                "resident_bytes": int(engine.nbytes),
                **{name: subject.made.meta.get(name) for name in ("collapse", "not_pruned", "training_seconds")},
                **subject.costs,
                **self._speedup(subject.model, right.x, engine),
            }
        return Measured(facts_of(case, self.threads, **values), partial(engine, right.x))

    def failed(self, case: Case, reason: str, status: str = "failed") -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        return facts_of(case, self.threads, status, reason=reason)

    def _speedup(self, model: nn.Module, x: Tensor, engine: Any) -> dict[str, Any]:
        # Against the faster of torch's dense ways here: the headline's baseline is never the slow one.
        executors = {
            name: backends.compile(model, x, "dense", self.threads, **options)
            for name, options in BASELINES.items()
            if name == "dense" or any(w.ndim == 4 for w in model.parameters())
        }
        arms: dict[str, Callable[[], Any]] = {name: partial(e, x) for name, e in executors.items()}
        if len(arms) > 1:
            trial = compare(arms, "dense", seconds=self.timing_seconds / 4)["dense_channels_last"]
            baseline = "dense_channels_last" if trial.speedup > 1 else "dense"
        else:
            baseline = "dense"
        result = compare(
            {baseline: arms[baseline], "engine": partial(engine, x)}, baseline, seconds=self.timing_seconds
        )
        r = result["engine"]
        return {
            "speedup": r.speedup,
            "speedup_low": r.low,
            "speedup_high": r.high,
            "baseline": baseline,
            "verdict": r.verdict,
            "blocks": r.blocks,
            "ratios": r.ratios,
            "control_ratios": r.control_ratios,
            "latency_seconds": r.seconds,
            "baseline_seconds": r.baseline_seconds,
        }

    def _subject(self, cell: Cell, data: Dataset) -> Subject | None:
        """The cell's; None where its training diverged."""
        if self._last is None or self._last.cell != cell:
            self._last = None
            made = pipeline.artifact(cell, self.lab)
            if made.state is None:
                return None
            model = pipeline.model_of(cell, made, self.lab)
            with machine.threads(self.threads):
                size, costs = len(formats.to_bytes(model.state_dict())), _costs(model, _batch(data, 1))
            self._last = Subject(cell, made, model, size, costs)
        return self._last

    def _control(self, control: Cell, data: Dataset) -> tuple[float, int]:
        if control not in self._dense:
            made = pipeline.artifact(control, self.lab)
            model = pipeline.model_of(control, made, self.lab)
            with machine.threads(machine.cores()):
                self._dense[control] = (_accuracy(model, data), len(formats.to_bytes(model.state_dict(), "dense")))
        return self._dense[control]


def _accuracy(predict: Any, data: Dataset) -> float:
    from prunebench.training.loop import accuracy

    return accuracy(predict, data, data.test)


def _batch(data: Dataset, size: int) -> Tensor:
    import torch

    try:
        index = torch.arange(size) % len(data.test)
        return data.normalise(data.test.images[index])
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        needed = 4 * size * data.test.images[0].numel() / 1e9
        raise UsageError(f"batch size {size} needs {needed:,.0f} GB for its images alone; give less") from error


def _costs(model: nn.Module, example: Tensor) -> dict[str, int]:
    from dataclasses import asdict

    from prunebench.costs import count

    return asdict(count(model, example))
