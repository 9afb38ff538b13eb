"""What a long grid says while it runs: an estimate first, then a line per checkpoint with the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prunebench import pipeline
from prunebench.cell import Case, Cell

if TYPE_CHECKING:
    from prunebench.pipeline import Lab

# A case besides its timing: compile, float64 check, accuracy, and the rounds for pytest-benchmark's history.
CASE_OVERHEAD_SECONDS = 0.6
QUIET_SECONDS = 2.0


class Progress:
    """Counts checkpoints and cases; `write` gets whole lines. `workers`: checkpoints that are trained at once."""

    workers = 1

    def __init__(self, write: Callable[[str], None], timing_seconds: float) -> None:
        self.write = write
        self.case_seconds = timing_seconds * 1.25 + CASE_OVERHEAD_SECONDS
        self._start = self._spoke = time.monotonic()
        self._costs: dict[Cell, float] = {}
        self._cases = self._measured = self._missing = self._made = 0
        self._estimated = self._taken = 0.0
        self._known = True  # how long a step takes

    def announce(self, cases: Sequence[Case], lab: Lab | None) -> None:
        """One line: cells, how many are stored, cases, minutes; a few training steps are timed for it.

        Without a lab nothing is built, and the time that training takes isn't known.
        """
        self._cases = len(cases)
        if lab is None:
            cells = len({case.cell for case in cases})
            measuring = _span(self._cases * self.case_seconds)
            self.write(f"prunebench: {cells} cells, {self._cases} cases to measure ({measuring} without training)")
            return
        self.announce_cells(list(dict.fromkeys(case.cell for case in cases)), lab)

    def announce_cells(self, cells: Sequence[Cell], lab: Lab, timed: bool = True) -> None:
        """The same for cells that are only to be made, not measured; timed=False: on other machines than this one."""
        missing = pipeline.to_make(cells, lab)
        self._missing = len(missing)
        if missing:
            lab.store.check_writable()
        steps: dict[Any, float] = {}
        for cell in missing:
            kind = (cell.dataset, cell.model, cell.recipe)
            if kind not in steps:
                steps[kind] = step_seconds(cell, lab) if timed else 1.0
            epochs = pipeline.epochs_of(cell)
            per_epoch = math.ceil(len(lab.data(cell.dataset).train) / cell.recipe.batch_size)
            self._costs[cell] = steps[kind] * epochs * per_epoch
        self._known = timed
        if not timed:
            self.write(
                f"prunebench: {len(cells)} cells, {len(missing)} checkpoints to train, {self.workers} at once; "
                "the first ones tell how long it takes"
            )
            return
        training, measuring = self._left(), self._cases * self.case_seconds
        cases = f"{self._cases} cases to measure ({_span(measuring)}); " if self._cases else ""
        self.write(
            f"prunebench: {len(cells)} cells, {len(missing)} checkpoints to train ({_span(training)}), {cases}"
            f"about {_span(training + measuring)} in all"
        )

    def tell(self, cell: Cell, step: int, steps: int) -> None:
        """Called after each epoch; speaks only where nothing was said for a while."""
        if time.monotonic() - self._spoke > 10 * QUIET_SECONDS:
            self._say(f"{cell.id}: {100 * step // steps} % trained")

    def said(self, cell: Cell, made: Any) -> None:
        """Called once a checkpoint was made."""
        meta = made.meta
        self._made += 1
        self._estimated += self._costs.pop(cell, 0.0)
        self._taken += meta.get("training_seconds", 0.0)
        result = f"validation {100 * meta['validation_accuracy']:.1f} %" if meta["status"] == "ok" else meta["reason"]
        said = "".join(f"; {meta[what]}" for what in ("collapse", "not_pruned") if meta.get(what))
        self._say(f"{cell.id}: {result} in {meta.get('training_seconds', 0):.1f} s{said}")

    def waits(self, cell: Cell) -> None:
        """Called where another process is making a checkpoint that this one needs."""
        self.write(f"prunebench: {cell.id} is being trained by another process on this store; waiting for it")

    def under_way(self, running: int) -> None:
        """Called now and then while workers train; speaks only where nothing was said for a while."""
        if time.monotonic() - self._spoke > 10 * QUIET_SECONDS:
            self._say(f"{running} under way")

    def begins(self) -> None:
        """Called before each case."""

    def measured(self) -> None:
        """Called after each case."""
        self._measured += 1
        if time.monotonic() - self._spoke > 10 * QUIET_SECONDS:
            self._say("measuring")

    def done(self) -> None:
        """The total, once."""
        if self._measured:
            self.write(
                f"prunebench: {self._measured} of {self._cases} cases in {_span(time.monotonic() - self._start)}"
            )

    def _say(self, text: str) -> None:
        left = self._left() + (self._cases - self._measured) * self.case_seconds
        # Where nothing is measured, checkpoints are what is counted.
        done, total = (self._measured, self._cases) if self._cases else (self._made, self._missing)
        rest = f"{_span(left)} left" if self._known or self._estimated else "no estimate yet"
        self.write(f"prunebench: [{done}/{total}] {text}; {rest}")
        self._spoke = time.monotonic()

    def _left(self) -> float:
        # What was made so far tells how far off the estimate was.
        pace = self._taken / self._estimated if self._estimated else 1.0
        return pace * sum(self._costs.values()) / max(1, min(self.workers, len(self._costs)))


class Pace:
    """The same for cases without checkpoints: how many there are, then now and then how long the rest will take."""

    def __init__(self, write: Callable[[str], None], question: str, cases: int) -> None:
        self.write, self.question, self.cases = write, question, cases
        self._start: float | None = None
        self._measured = 0
        self._spoke = time.monotonic()
        write(f"prunebench: {cases} cases of {question} to measure")

    def begins(self) -> None:
        """Called before each case: the time counts from the first."""
        self._start = self._start or time.monotonic()

    def measured(self) -> None:
        """Called after each case."""
        self._measured += 1
        now = time.monotonic()
        if self._start is not None and now - self._spoke > 10 * QUIET_SECONDS:
            left = (now - self._start) / self._measured * (self.cases - self._measured)
            self.write(f"prunebench: [{self._measured}/{self.cases}] {self.question}; {_span(left)} left")
            self._spoke = now

    def done(self) -> None:
        """The total, once."""
        if self._start is not None:
            spent = _span(time.monotonic() - self._start)
            self.write(f"prunebench: {self._measured} of {self.cases} cases of {self.question} in {spent}")


class Loop:
    """Counts a loop's turns; silent for the first two seconds, then a bar on a terminal, elsewhere now and then a line.

    `advance` is called after each turn, `close` at the end, also where the loop broke off.
    """

    def __init__(self, write: Callable[[str], None], what: str, total: int, bar: bool = False) -> None:
        self.write, self.what, self.total, self.bar = write, what, total, bar
        self._start = self._spoke = time.monotonic()
        self._done = 0
        self._drawn: Any = None

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._drawn is not None:
            self._drawn.update(self._drawn.task_ids[0], completed=self._done)
        elif now - self._start < QUIET_SECONDS or self._done == self.total:
            return
        elif self.bar:
            self._drawn = _drawn_bar()
            self._drawn.start()
            self._drawn.add_task(self.what, total=self.total, completed=self._done)
        elif self._spoke == self._start or now - self._spoke > 10 * QUIET_SECONDS:
            left = (now - self._start) / self._done * (self.total - self._done)
            self.write(f"prunebench: [{self._done}/{self.total}] {self.what}; {_span(left)} left")
            self._spoke = now

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None


class Bar(Progress):
    """The same with a bar for the checkpoint in training, for one cell on a terminal."""

    def __init__(self, write: Callable[[str], None], timing_seconds: float) -> None:
        super().__init__(write, timing_seconds)
        self._bar = _drawn_bar()
        self._task: Any = None

    def tell(self, cell: Cell, step: int, steps: int) -> None:
        if not self._bar.console.is_terminal:
            return
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(cell.id, total=steps)
        self._bar.update(self._task, completed=step)

    def said(self, cell: Cell, made: Any) -> None:
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None
        super().said(cell, made)


def _drawn_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def step_seconds(cell: Cell, lab: Lab) -> float:
    """Seconds of one training step, measured on a throw-away model."""
    import torch
    import torch.nn.functional as F

    from prunebench import machine, models
    from prunebench.training.loop import memory_layout, useful_threads

    data = lab.training_data(cell.dataset)
    model = models.build(cell.model, data.input_shape, data.classes).to(lab.device).train()
    layout = memory_layout(model)
    model.to(memory_format=layout)
    x = data.normalise(data.train.images[: cell.recipe.batch_size]).contiguous(memory_format=layout)
    y = data.train.labels[: cell.recipe.batch_size]
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    with machine.threads(useful_threads(model, data, cell.recipe)):
        best = math.inf
        for _ in range(4):  # the best: the first pays for warming up, and any may be disturbed
            start = time.perf_counter()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for a GPU
            best = min(best, time.perf_counter() - start)
    return best


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
