"""One case measured: compile for the backend, check against float64, accuracy, bytes, paired speed-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench import backends, formats, machine, pipeline
from prunebench.cell import Case, Cell
from prunebench.facts import facts_of
from prunebench.reference import CheckFailed, Reference
from prunebench.timing import compare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset

__all__ = ["Bench", "CheckFailed", "Measured", "check"]

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
class Bench:
    """Measures cases one after another; keeps the last cell's model, because its backends follow each other."""

    lab: pipeline.Lab
    threads: int = 1
    timing_seconds: float = 1.0
    _last: tuple[Cell, Any] | None = None
    _dense: dict[Cell, tuple[float, int]] = field(default_factory=dict)

    def measure(self, case: Case) -> Measured:
        """Everything about a case; raises CheckFailed where the backend's output is wrong, before any timing."""
        made = pipeline.artifact(case.cell, self.lab)
        if made.state is None:
            return Measured(facts_of(case, self.threads, made.meta["status"], reason=made.meta["reason"]))
        data = self.lab.data(case.cell.dataset)
        model = self._model(case.cell, made)
        dense_accuracy, dense_bytes = self._control(case.cell.control, data)
        with machine.threads(self.threads):
            x = _batch(data, case.batch_size)
            engine = backends.compile(model, x, case.backend, self.threads)
            error = check(engine, model, x, case)
            values = {
                "relative_error": error,
                "accuracy": _accuracy(engine, data),
                "accuracy_dense": dense_accuracy,
                "disk_bytes": len(formats.to_bytes(model.state_dict())),
                "dense_disk_bytes": dense_bytes,
                "resident_bytes": int(engine.nbytes),
                "collapse": made.meta.get("collapse"),
                "not_pruned": made.meta.get("not_pruned"),
                "training_seconds": made.meta.get("training_seconds"),
                **_costs(model, x[:1]),
                **self._speedup(model, x, engine),
            }
        return Measured(facts_of(case, self.threads, **values), partial(engine, x))

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
            "latency_seconds": r.seconds,
            "baseline_seconds": r.baseline_seconds,
        }

    def _model(self, cell: Cell, made: Any) -> nn.Module:
        if self._last is None or self._last[0] != cell:
            self._last = (cell, pipeline.model_of(cell, made, self.lab))
        return self._last[1]

    def _control(self, control: Cell, data: Dataset) -> tuple[float, int]:
        if control not in self._dense:
            made = pipeline.artifact(control, self.lab)
            model = pipeline.model_of(control, made, self.lab)
            with machine.threads(machine.cores()):
                self._dense[control] = (_accuracy(model, data), len(formats.to_bytes(model.state_dict(), "dense")))
        return self._dense[control]


def check(engine: Any, model: nn.Module, x: Tensor, case: Case) -> float:
    """The relative error on a batch against the model in float64; CheckFailed beyond TOLERANCE."""
    return Reference(model, x).check(engine, case.id)


def _accuracy(predict: Any, data: Dataset) -> float:
    from prunebench.training.loop import accuracy

    return accuracy(predict, data, data.test)


def _batch(data: Dataset, size: int) -> Tensor:
    import torch

    index = torch.arange(size) % len(data.test)
    return data.normalise(data.test.images[index])


def _costs(model: nn.Module, example: Tensor) -> dict[str, int]:
    from dataclasses import asdict

    from prunebench.costs import count

    return asdict(count(model, example))
