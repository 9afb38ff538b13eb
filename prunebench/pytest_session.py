"""One session of benchmarks: what the cases need, the journal, progress, and the facts that could not be timed.

Imports no torch before the first case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prunebench import settings
from prunebench.atomic import create_bytes
from prunebench.cell import Case
from prunebench.errors import BackendUnavailable, PrunebenchError, UsageError, reason
from prunebench.journal import Journal
from prunebench.machine import cores, describe
from prunebench.measuring.limits import Limits
from prunebench.questions import ClaimCase, LayerCase, NetworkCase
from prunebench.untrusted import short_line

QUESTION_OF: dict[type, str] = {Case: "grid", LayerCase: "layers", NetworkCase: "networks", ClaimCase: "claims"}


def machine_facts() -> dict[str, Any]:
    """The machine with the engine's build, as it stands in every saved run."""
    from prunebench.engine.build_info import build_info

    return describe(build_info())


class Replay:
    """A clock for pytest-benchmark that shows the rounds that were timed in another process, one a round."""

    __module__, __name__ = "prunebench", "replay"  # as a saved run names it

    def __init__(self) -> None:
        self._now = 0.0
        self._steps: Iterator[float] = iter(())

    def __call__(self) -> float:
        """The seconds now."""
        return self._now

    def show(self, rounds: Sequence[float], calls: int, benchmark: Any) -> None:
        """Let a benchmark on this clock find these seconds, each for so many calls."""
        # Of a round's calls the first takes all of its time.
        self._steps = (seconds for total in rounds for seconds in (total, *(0.0,) * (calls - 1)))
        benchmark.pedantic(self._pass, rounds=len(rounds), iterations=calls)

    def _pass(self) -> None:
        self._now += next(self._steps, 0.0)  # pytest-benchmark calls once more for the result


class Session:
    """Measures the cases of one pytest session; `plans` holds {question: plan with its timing_seconds}.

    limits: of a process per case, None to measure in this one.
    """

    def __init__(
        self,
        config: pytest.Config,
        plans: dict[str, Any],
        threads: int,
        cases: Sequence[Any],
        limits: Limits | None = None,
    ) -> None:
        self.config, self.plans, self.cases, self.limits = config, plans, list(cases), limits
        self.replay = Replay()
        self.threads = min(threads, cores())  # of the grid; other cases say their own
        self.untimed: list[dict[str, Any]] = []
        self.started = self.interrupted = False
        self._lab: Any = None
        self._benches: dict[str, Any] = {}
        self._progress: dict[str, Any] = {}
        self._journal: Journal | None = None

    def announce(self, cases: Sequence[Any]) -> None:
        """Prepare what the cases need and say what is to come, before the first of them."""
        self.cases = list(cases)
        config = self.config
        name = config.getoption("benchmark_save", None)
        storage = getattr(config, "_benchmarksession").storage  # noqa: B009 - pytest-benchmark sets it on the fly
        if name and hasattr(storage, "path"):  # a folder; pytest-benchmark's other storage is a server
            self._journal = Journal(storage.get("."), name, machine_facts())
            storage.save = partial(_save_whole, storage)
        by_question: dict[str, list[Any]] = {}
        for case in self.cases:
            by_question.setdefault(QUESTION_OF[type(case)], []).append(case)
        write = _writer(config)
        if "grid" in by_question:
            self._announce_grid(by_question.pop("grid"), write)
        for question, found in by_question.items():
            from prunebench.measuring.benches import bench_of
            from prunebench.progress import Pace

            self._benches[question] = self._bench(question, bench_of(question, self.plans[question].timing_seconds))
            self._progress[question] = Pace(write, question, len(found))
        self.started = True

    def _announce_grid(self, cases: list[Any], write: Callable[[str], None]) -> None:
        from prunebench.measuring.grid import Bench
        from prunebench.pipeline import Lab
        from prunebench.progress import Progress
        from prunebench.remote_store import open_store

        config, seconds = self.config, self.plans["grid"].timing_seconds
        root = Path(config.rootpath)
        progress = Progress(write, seconds)
        try:
            self._lab = Lab(
                open_store(settings.store_place(config.getoption("store"), root)),
                settings.data(config.getoption("data"), root),
                progress.tell,
                progress.said,
                waits=progress.waits,
                **settings.training(*(config.getoption(name) for name in ("device", "logs", "tensorboard"))),
            )
            self._benches["grid"] = self._bench("grid", Bench(self._lab, self.threads, seconds))
            self._progress["grid"] = progress
            # What an estimate would build and train here may be what is kept out of this process.
            progress.announce(cases, self._lab if self.limits is None else None)
        except PrunebenchError as error:
            raise pytest.UsageError(str(error)) from error

    def measure(self, case: Any, benchmark: Any) -> dict[str, Any]:
        """The facts of a case, recorded in the benchmark, the journal and the saved run."""
        self._check_here(case.backend)
        question = QUESTION_OF[type(case)]
        bench, progress = self._benches[question], self._progress[question]
        progress.begins()
        try:
            measured = bench.measure(case)
        except PrunebenchError as error:
            if self.limits is not None and isinstance(error, BackendUnavailable):
                pytest.skip(str(error))
            self._record(bench.failed(case, str(error)), None, progress)
            pytest.fail(short_line(error), pytrace=False)
        except Exception as error:  # somebody's backend or model: pytest shows where, the tables that
            self._record(bench.failed(case, reason(error)), None, progress)
            raise
        facts = measured.facts
        benchmark.group = case.group
        benchmark.params = {"case": case.id}  # a Case is no JSON
        benchmark.extra_info.update(facts)
        if measured.call is None and measured.rounds is None:
            self._record(facts, None, progress)
            said = f"{facts['status']}: {facts['reason']}"
            # Divergence is what came out; the others kept anything from coming out.
            pytest.xfail(said) if facts["status"] == "diverged" else pytest.fail(said, pytrace=False)
        self._time(measured, benchmark)
        self._record(facts, benchmark, progress)
        return facts

    def _check_here(self, backend: str) -> None:
        """Skip where a backend can't run; isolated, that is asked in the case's process."""
        from prunebench import backends

        reason = backends.unavailable(backend) if self.limits is None else None
        if reason is not None:
            pytest.skip(f"backend {backend} is off: {reason}")

    def _bench(self, question: str, bench: Any) -> Any:
        if self.limits is None:
            return bench
        from prunebench.measuring.isolated import isolated

        return isolated(bench, question, self.limits)

    def _time(self, measured: Any, benchmark: Any) -> None:
        from prunebench import machine

        rounds, calls = measured.history()
        if measured.rounds is not None:
            self.replay.show(measured.rounds, calls, benchmark)
            return
        with machine.threads(measured.facts["threads"]):
            benchmark.pedantic(measured.call, rounds=rounds, iterations=calls, warmup_rounds=1)

    def _record(self, facts: dict[str, Any], benchmark: Any, progress: Any) -> None:
        if benchmark is None:
            self.untimed.append(facts)
        progress.measured()
        if self._journal is not None:
            try:
                self._journal.write(facts)
            except PrunebenchError as error:
                pytest.fail(str(error), pytrace=False)

    def finish(self) -> None:
        """Drop the journal once the run's own file is there (or nothing was worth saving)."""
        if self.started:
            for bench in self._benches.values() if self.limits is not None else ():
                bench.close()
            for progress in self._progress.values():
                progress.done()
            if self._journal is not None:
                self._journal.close()

    def closing_lines(self) -> list[str]:
        """What the store was used for, where the grid ran, and how to go on after Ctrl-C."""
        lines = []
        if self.started and self._lab is not None:
            lab = self._lab
            aside = f", {lab.store.set_aside} damaged entries set aside" if lab.store.set_aside else ""
            lines.append(f"prunebench: {lab.trained} checkpoints trained, {lab.reused} reads from the store{aside}")
        return [*lines, f"prunebench: {settings.INTERRUPTED}"] if self.interrupted else lines


def _save_whole(storage: Any, output_json: dict[str, Any], name: str) -> None:
    """pytest-benchmark's save, whole or not at all, over nobody's run: its own leaves half a file after a kill."""
    from pytest_benchmark.utils import safe_dumps

    content = safe_dumps(output_json, ensure_ascii=True, indent=4).encode()
    try:
        while not create_bytes(path := storage.get(f"{storage._next_num}_{name}.json"), content):
            continue  # another run took this number meanwhile
    except UsageError as error:
        pytest.exit(f"prunebench: {error}; what was measured stands in the journal beside it", returncode=1)
    storage.logger.info(f"Saved benchmark data in: {path}")


def _writer(config: pytest.Config) -> Any:
    """write(text) to the terminal, past pytest's capture."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")

    def write(text: str) -> None:
        if reporter is None:
            return
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(text)

    return write
