"""Benchmarks as pytest cases: options, ids, marker, the `measure` fixture, progress, and saved runs.

The grid is what `pytest benchmarks` collects. The other questions take their own quarter of an hour: their files are
collected where they are named on the command line, and under the profile `paper`.

Imports no torch: `--collect-only` must stay fast.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from prunebench import profiles, questions, settings
from prunebench.errors import PrunebenchError, UsageError
from prunebench.journal import check_run_name
from prunebench.machine import cores
from prunebench.measuring import limits
from prunebench.measuring.limits import Limits
from prunebench.pytest_session import Session, machine_facts

_PLANS = pytest.StashKey[dict[str, Any]]()  # question -> its plan
INTERRUPTED_STATUS = 130  # as a shell says it of a command that Ctrl-C ended
_SESSION = pytest.StashKey[Session]()
_LIMITS = pytest.StashKey[Limits | None]()
_OPTIONS = (*profiles.LISTS, "epochs", "fine_tune_epochs", "recipe", "controls")
# Each in benchmarks/test_<question>.py.
_ASIDE = {"layers": questions.layers, "networks": questions.networks, "claims": questions.claims}
_ARGUMENTS = {"case": "grid", "layer_case": "layers", "network_case": "networks", "claim_case": "claims"}


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
        "--recipe",
        metavar="NAME[:KEY=VALUE…]",
        help=f"one of {', '.join(profiles.recipe_names())}; default by model and dataset",
    )
    group.addoption("--controls", action="store_true", default=None, help=settings.CONTROLS_HELP)
    group.addoption("--device", metavar="NAME", help=settings.DEVICE_HELP)
    group.addoption("--logs", metavar="DIR", help=settings.LOGS_HELP)
    group.addoption("--tensorboard", action="store_true", help="TensorBoard's events beside the CSV under --logs")
    group.addoption("--isolate", action="store_true", help=limits.HELP)
    group.addoption("--isolate-memory", metavar="SIZE", help=limits.MEMORY_HELP)
    group.addoption("--isolate-seconds", metavar="N", help=limits.SECONDS_HELP)
    group.addoption("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    group.addoption(
        "--store", metavar="DIR", help="folder of checkpoints; default PRUNEBENCH_STORE or .prunebench/store"
    )
    group.addoption(
        "--threads",
        metavar="N",
        help="threads of every backend while measuring; default 1. Files of other questions than the grid take a list",
    )


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
        config.stash[_PLANS] = _plans(config)
        _grid_threads(config)
        config.stash[_LIMITS] = limits.limits_of(option.isolate, option.isolate_memory, option.isolate_seconds)
        settings.check_training(option.device, option.logs, option.tensorboard)
        if getattr(option, "benchmark_save", None):
            check_run_name(option.benchmark_save)
    except PrunebenchError as error:
        raise pytest.UsageError(str(error)) from error


def _plans(config: pytest.Config) -> dict[str, Any]:
    """The plans of what this command line asks for, each validated."""
    profile = config.getoption("profile")
    overrides = {name: config.getoption(name) for name in (*_OPTIONS, "threads")}
    names = [Path(str(argument).split("::")[0]).name for argument in config.args]
    asked = [question for question in _ASIDE if _file(question) in names]
    plans = {question: _ASIDE[question](profile, overrides) for question in asked}
    if asked and all(name in map(_file, asked) for name in names):
        for name in _OPTIONS:
            if overrides[name] is not None and name not in questions.OPTIONS:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} says nothing about {' or '.join(asked)}, which train nothing; leave it out")
        return plans
    overrides.pop("threads")
    plans["grid"] = profiles.plan(profile, overrides)
    if profile == "paper":
        for question, plan in _ASIDE.items():
            plans.setdefault(question, plan(profile, {**overrides, "threads": config.getoption("threads")}))
    return plans


def _file(question: str) -> str:
    return f"test_{question}.py"


def _grid_threads(config: pytest.Config) -> int:
    """--threads as the grid takes it: one number."""
    numbers = profiles.items("threads", config.getoption("threads") or "1")
    threads = [profiles.whole_number("--threads", number, 1) for number in numbers]
    if len(threads) > 1 and "grid" in config.stash[_PLANS]:
        raise UsageError(
            f"--threads {','.join(numbers)}: the grid takes one number; run it once for each, or name "
            f"{' or '.join(f'benchmarks/{_file(q)}' for q in _ASIDE)}"
        )
    return threads[0]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.parent != config.rootpath / "benchmarks":
        return None
    unasked = [_file(question) for question in _ASIDE if question not in config.stash[_PLANS]]
    return True if collection_path.name in unasked else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, question in _ARGUMENTS.items():
        if argument in metafunc.fixturenames and question in metafunc.config.stash[_PLANS]:
            plan = metafunc.config.stash[_PLANS][question]
            cases = plan.cases() if question == "grid" else plan.cases
            values = [pytest.param(c, id=c.id, marks=pytest.mark.cell(**c.marks())) for c in cases]
            metafunc.parametrize(argument, values, scope="session")


def pytest_report_header(config: pytest.Config) -> list[str]:
    from prunebench import engine

    profile = config.getoption("profile") or profiles.DEFAULT_PROFILE
    threads = config.getoption("threads") or ("1" if "grid" in config.stash[_PLANS] else "the profile's")
    lines = [f"prunebench: profile {profile}, {threads} of {cores()} threads while measuring"]
    if config.stash[_LIMITS] is not None:
        lines.append(f"prunebench: each case in a process of its own: {config.stash[_LIMITS]}")
    reason = engine.available()
    if reason:
        lines.append(f"prunebench: the csr backend is off: {reason}")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases = [case for item in items if (case := _case(item)) is not None]
    config.stash[_SESSION] = Session(config, config.stash[_PLANS], _grid_threads(config), cases, config.stash[_LIMITS])


def _case(item: Any) -> Any:
    """The benchmark case of a test, or None for an ordinary one."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return next((parameters[name] for name in _ARGUMENTS if name in parameters), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    ours = session.config.stash.get(_SESSION, None)
    if ours is None or not ours.cases or session.config.option.collectonly:
        return (yield)
    try:
        ours.announce([case for item in session.items if (case := _case(item)) is not None])
        return (yield)
    except KeyboardInterrupt:
        # What was measured is saved and summed up as ever; pytest's own way shows where in the code it was stopped.
        ours.interrupted = True
        return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.stash[_LIMITS] is not None and _case(item) is not None:
        item.add_marker(pytest.mark.benchmark(timer=item.config.stash[_SESSION].replay))


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Any:
    """A function of a case: measures it, lets `benchmark` time it for the history, returns the facts."""
    return lambda case: request.config.stash[_SESSION].measure(case, benchmark)


@pytest.hookimpl
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["node"] = ""  # a host name says nothing about speed and may be private
    machine_info["prunebench"] = machine_facts()


@pytest.hookimpl
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    session = config.stash.get(_SESSION, None)
    if session is not None:
        profile = config.getoption("profile") or profiles.DEFAULT_PROFILE
        output_json["prunebench"] = {"schema": 1, "profile": profile, "untimed": session.untimed}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    ours = session.config.stash.get(_SESSION, None)
    if ours is not None:
        ours.finish()
        if ours.interrupted:
            session.exitstatus = INTERRUPTED_STATUS


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ours = config.stash.get(_SESSION, None)
    for line in ours.closing_lines() if ours is not None else []:
        terminalreporter.write_line(line)
