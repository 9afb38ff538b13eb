"""One session of benchmarks: what the cases need, the journal, progress, and the facts that could not be timed.

Imports no torch before the first case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from prunebench.cell import Case
from prunebench.errors import PrunebenchError
from prunebench.journal import Journal
from prunebench.machine import cores, describe
from prunebench.questions import ClaimCase, LayerCase, NetworkCase

QUESTION_OF: dict[type, str] = {Case: "grid", LayerCase: "layers", NetworkCase: "networks", ClaimCase: "claims"}


def machine_facts() -> dict[str, Any]:
    """The machine with the engine's build, as it stands in every saved run."""
    from prunebench.engine.build_info import build_info

    return describe(build_info())


class Session:
    """Measures the cases of one pytest session; `plans` holds {question: plan with its timing_seconds}."""

    def __init__(self, config: pytest.Config, plans: dict[str, Any], threads: int, cases: Sequence[Any]) -> None:
        self.config, self.plans, self.cases = config, plans, list(cases)
        self.threads = min(threads, cores())  # of the grid; other cases say their own
        self.untimed: list[dict[str, Any]] = []
        self.started = False
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
        by_question: dict[str, list[Any]] = {}
        for case in self.cases:
            by_question.setdefault(QUESTION_OF[type(case)], []).append(case)
        write = _writer(config)
        if "grid" in by_question:
            self._announce_grid(by_question.pop("grid"), write)
        for question, found in by_question.items():
            from prunebench.progress import Pace

            self._benches[question] = _bench(question, self.plans[question].timing_seconds)
            self._progress[question] = Pace(write, question, len(found))
        self.started = True

    def _announce_grid(self, cases: list[Any], write: Callable[[str], None]) -> None:
        from prunebench import settings
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
                **settings.training(*(config.getoption(name) for name in ("device", "logs", "tensorboard"))),
            )
            self._benches["grid"], self._progress["grid"] = Bench(self._lab, self.threads, seconds), progress
            progress.announce(cases, self._lab)
        except PrunebenchError as error:
            raise pytest.UsageError(str(error)) from error

    def measure(self, case: Any, benchmark: Any) -> dict[str, Any]:
        """The facts of a case, recorded in the benchmark, the journal and the saved run."""
        from prunebench import backends

        reason = backends.unavailable(case.backend)
        if reason is not None:
            pytest.skip(f"backend {case.backend} is off: {reason}")
        question = QUESTION_OF[type(case)]
        bench, progress = self._benches[question], self._progress[question]
        progress.begins()
        try:
            measured = bench.measure(case)
        except PrunebenchError as error:
            self._record(bench.failed(case, str(error)), None, progress)
            pytest.fail(str(error), pytrace=False)
        facts = measured.facts
        benchmark.group = case.group
        benchmark.params = {"case": case.id}  # a Case is no JSON
        benchmark.extra_info.update(facts)
        if measured.call is None:
            self._record(facts, None, progress)
            pytest.xfail(f"{facts['status']}: {facts['reason']}")
        self._time(measured, benchmark)
        self._record(facts, benchmark, progress)
        return facts

    def _time(self, measured: Any, benchmark: Any) -> None:
        from prunebench import machine

        seconds = max(measured.facts["latency_seconds"], 1e-7)
        iterations = max(1, round(0.005 / seconds))
        rounds = int(min(50, max(5, measured.history_seconds / (iterations * seconds))))
        with machine.threads(measured.facts["threads"]):
            benchmark.pedantic(measured.call, rounds=rounds, iterations=iterations, warmup_rounds=1)

    def _record(self, facts: dict[str, Any], benchmark: Any, progress: Any) -> None:
        if benchmark is None:
            self.untimed.append(facts)
        progress.measured()
        if self._journal is not None:
            self._journal.write(facts)

    def finish(self) -> None:
        """Drop the journal once the run's own file is there (or nothing was worth saving)."""
        if self.started:
            for progress in self._progress.values():
                progress.done()
            if self._journal is not None:
                self._journal.close()

    def closing_line(self) -> str | None:
        """What the store was used for, where the grid ran."""
        if self._lab is None:
            return None
        lab = self._lab
        aside = f", {lab.store.set_aside} damaged entries set aside" if lab.store.set_aside else ""
        return f"prunebench: {lab.trained} checkpoints trained, {lab.reused} reads from the store{aside}"


def _bench(question: str, seconds: float) -> Any:
    if question == "layers":
        from prunebench.measuring.layers import LayerBench

        return LayerBench(seconds)
    if question == "claims":
        from prunebench.measuring.claims import ClaimBench

        return ClaimBench(seconds)
    from prunebench.measuring.networks import NetworkBench

    return NetworkBench(seconds)


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
