"""The grid as pytest cases: options, ids, marker, the `measure` fixture, progress, and saved runs.

Imports no torch: `--collect-only` must stay fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunebench import profiles
from prunebench.errors import PrunebenchError
from prunebench.journal import Journal, check_run_name
from prunebench.machine import cores, describe

_PLAN = pytest.StashKey[profiles.Plan]()
_SESSION = pytest.StashKey["_Session"]()
_OPTIONS = (*profiles.LISTS, "epochs", "fine_tune_epochs", "recipe")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("prunebench", "the pruning grid (comma-separated lists; defaults come from the profile)")
    group.addoption(
        "--profile", metavar="NAME", help=f"one of {', '.join(profiles.names())}; default {profiles.DEFAULT_PROFILE}"
    )
    for name in profiles.LISTS:
        group.addoption(f"--{name.replace('_', '-')}", metavar="LIST", help=f"{name.replace('_', ' ')} of the grid")
    group.addoption("--epochs", metavar="N", help="epochs of dense training, instead of the recipe's")
    group.addoption("--fine-tune-epochs", metavar="N", help="epochs of fine-tuning, instead of the recipe's")
    group.addoption(
        "--recipe", metavar="NAME", help=f"one of {', '.join(profiles.recipe_names())}; default by model and dataset"
    )
    group.addoption("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    group.addoption(
        "--store", metavar="DIR", help="folder of checkpoints; default PRUNEBENCH_STORE or .prunebench/store"
    )
    group.addoption("--threads", metavar="N", default="1", help="threads of every backend while measuring; default 1")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "cell(model, criterion, sparsity, …): a grid case; select with -m \"cell(criterion='l1', sparsity=900)\"",
    )
    # Before pytest-benchmark reads its options: what a grid run needs is configured, so the user types nothing.
    option = config.option
    if getattr(option, "benchmark_storage", None) == "file://./.benchmarks":
        option.benchmark_storage = f"file://{config.rootpath / 'results' / 'runs'}"
    if getattr(option, "benchmark_columns", None) is None:
        option.benchmark_columns = ["median", "iqr", "min", "max", "rounds", "iterations"]
    option.benchmark_disable_gc = True
    try:
        overrides = {name: config.getoption(name) for name in _OPTIONS}
        config.stash[_PLAN] = profiles.plan(config.getoption("profile"), overrides)
        profiles.whole_number("--threads", config.getoption("threads"), 1)
        if getattr(option, "benchmark_save", None):
            check_run_name(option.benchmark_save)
    except PrunebenchError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = metafunc.config.stash[_PLAN].cases()
        metafunc.parametrize(
            "case", [pytest.param(c, id=c.id, marks=pytest.mark.cell(**c.marks())) for c in cases], scope="session"
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    from prunebench import engine

    plan = config.stash[_PLAN]
    threads = config.getoption("threads")
    lines = [f"prunebench: profile {plan.profile}, {threads} of {cores()} threads while measuring"]
    reason = engine.available()
    if reason:
        lines.append(f"prunebench: the csr backend is off: {reason}")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_SESSION] = _Session(config, [_case(item) for item in items if _is_case(item)])


def _case(item: Any) -> Any:
    return item.callspec.params["case"]


def _is_case(item: pytest.Item) -> bool:
    return "case" in getattr(getattr(item, "callspec", None), "params", {})


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    ours = session.config.stash.get(_SESSION, None)
    if ours is not None and ours.cases and not session.config.option.collectonly:
        ours.announce([_case(item) for item in session.items if _is_case(item)])
    return (yield)


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Any:
    """A function of a case: measures it, lets `benchmark` time it for the history, returns the facts."""
    return lambda case: request.config.stash[_SESSION].measure(case, benchmark)


@pytest.hookimpl
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["node"] = ""  # a host name says nothing about speed and may be private
    machine_info["prunebench"] = _machine()


@pytest.hookimpl
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    session = config.stash.get(_SESSION, None)
    if session is not None:
        output_json["prunebench"] = {"schema": 1, "profile": config.stash[_PLAN].profile, "untimed": session.untimed}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    ours = session.config.stash.get(_SESSION, None)
    if ours is not None:
        ours.finish()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ours = config.stash.get(_SESSION, None)
    if ours is not None and ours.started:
        terminalreporter.write_line(ours.closing_line())


def _machine() -> dict[str, Any]:
    from prunebench.engine.build_info import build_info

    return describe(build_info())


class _Session:
    """One run of the grid: the laboratory, progress, the journal, and the facts of cases that could not be timed."""

    def __init__(self, config: pytest.Config, cases: list[Any]) -> None:
        self.config, self.cases = config, cases
        self.untimed: list[dict[str, Any]] = []
        self.started = False
        self._journal: Journal | None = None

    def announce(self, cases: list[Any]) -> None:
        """Prepare the store and say what is to come, before the first case."""
        from prunebench import settings
        from prunebench.measure import Bench
        from prunebench.pipeline import Lab
        from prunebench.progress import Progress
        from prunebench.store import Store

        config, plan = self.config, self.config.stash[_PLAN]
        root = Path(config.rootpath)
        self.cases = cases
        self.progress = Progress(_writer(config), plan.timing_seconds)
        lab = Lab(
            Store(settings.store(config.getoption("store"), root)),
            settings.data(config.getoption("data"), root),
            self.progress.tell,
            self.progress.said,
        )
        self.bench = Bench(lab, min(int(config.getoption("threads")), cores()), plan.timing_seconds)
        name = config.getoption("benchmark_save", None)
        storage = getattr(config, "_benchmarksession").storage  # noqa: B009 - pytest-benchmark sets it on the fly
        if name and hasattr(storage, "path"):  # a folder; pytest-benchmark's other storage is a server
            self._journal = Journal(storage.get("."), name, _machine())
        try:
            self.progress.announce(cases, lab)
        except PrunebenchError as error:
            raise pytest.UsageError(str(error)) from error
        self.started = True

    def measure(self, case: Any, benchmark: Any) -> dict[str, Any]:
        """The facts of a case, recorded in the benchmark, the journal and the saved run."""
        from prunebench import backends
        from prunebench.facts import facts_of

        reason = backends.unavailable(case.backend)
        if reason is not None:
            pytest.skip(f"backend {case.backend} is off: {reason}")
        try:
            measured = self.bench.measure(case)
        except PrunebenchError as error:
            self._record(facts_of(case, self.bench.threads, "failed", reason=str(error)), None)
            pytest.fail(str(error), pytrace=False)
        facts = measured.facts
        benchmark.group = f"{case.cell.model}-{case.cell.dataset}-b{case.batch_size}"
        benchmark.params = {"case": case.id}  # a Case is no JSON
        benchmark.extra_info.update(facts)
        if measured.call is None:
            self._record(facts, None)
            pytest.xfail(f"{facts['status']}: {facts['reason']}")
        self._time(measured.call, facts, benchmark)
        self._record(facts, benchmark)
        return facts

    def _time(self, call: Any, facts: dict[str, Any], benchmark: Any) -> None:
        from prunebench import machine

        seconds = max(facts["latency_seconds"], 1e-7)
        iterations = max(1, round(0.005 / seconds))
        rounds = int(min(50, max(5, 0.25 / (iterations * seconds))))
        with machine.threads(self.bench.threads):
            benchmark.pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=1)

    def _record(self, facts: dict[str, Any], benchmark: Any) -> None:
        if benchmark is None:
            self.untimed.append(facts)
        self.progress.measured()
        if self._journal is not None:
            self._journal.write(facts)

    def finish(self) -> None:
        """Drop the journal once the run's own file is there (or nothing was worth saving)."""
        if self.started:
            self.progress.done()
            if self._journal is not None:
                self._journal.close()

    def closing_line(self) -> str:
        lab = self.bench.lab
        aside = f", {lab.store.set_aside} damaged entries set aside" if lab.store.set_aside else ""
        return f"prunebench: {lab.trained} checkpoints trained, {lab.reused} reads from the store{aside}"


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
