"""`prunebench compare RUN_A RUN_B`: its options, and what they do. Exit code 1 where --fail-slower fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.commands import options as shared
from prunebench.commands.output import check_format, draws, emit, show, show_table
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.comparison.judging import Result
    from prunebench.runs import Run

_EXAMPLES = [
    "prunebench compare quick mine",
    "prunebench compare 0001 0002 --fail-slower 5%",
    "prunebench compare quick elsewhere --accuracy",
    "prunebench compare old new --across engine,versions --json",
]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "two saved runs case by case: what is faster, slower, more accurate"
    compare = shared.command(commands, "compare", help, run, _EXAMPLES)
    one = compare.add_argument("run_a", metavar="RUN_A", help="a saved run's name, number or path: the earlier one")
    other = compare.add_argument(
        "run_b", metavar="RUN_B", help="the one that is compared with it; pytest-benchmark's own too"
    )
    for action in (one, other):
        shared.completed(action, shared.saved_runs)
    compare.add_argument("--across", metavar="LIST", default="", help="what may differ: engine, versions")
    compare.add_argument("--accuracy", action="store_true", help="accuracies and bytes only, whatever the machines")
    compare.add_argument(
        "--fail-slower", metavar="PERCENT", help="such as 5%%: exit code 1 where a case or a mean takes longer by more"
    )
    shared.add_format(compare)
    shared.add_results(compare)


def run(options: argparse.Namespace) -> int:
    """Print the comparison; returns the exit code."""
    from prunebench.comparison.cases import cases_of
    from prunebench.comparison.judging import compare_runs, slower_than

    check_format(options.format)
    limit = None if options.fail_slower is None else _percentage(options.fail_slower)
    if limit is not None and options.accuracy:
        raise UsageError("--fail-slower is about time, which --accuracy leaves out; give one of them")
    results = settings.results(options.results)
    found = [_only_run(results / "runs", text) for text in (options.run_a, options.run_b)]
    apart = found[0].path.stem != found[1].path.stem
    a, b = (cases_of(one, one.path.stem if apart else str(one.path)) for one in found)
    across = [name.strip() for name in options.across.split(",") if name.strip()]
    result = compare_runs(a, b, across=across, accuracy=options.accuracy)
    failures = [] if limit is None else slower_than(result, limit)
    _print(result, failures, options)
    for line in failures:
        print(f"prunebench: {line}", file=sys.stderr)
    return 1 if failures else 0


def _print(result: Result, failures: Sequence[str], options: argparse.Namespace) -> None:
    from prunebench.comparison import tables

    if options.json:
        emit(options, notes=tables.notes(result), cases=tables.numbers_table(result), failures=failures)
    elif options.format is None and draws():
        for line in tables.notes(result):
            show(line + "\n")
        show_table(tables.summary_table(result), None)
        show_table(tables.cases_table(result), None)
    else:
        print(tables.comparison_text(result, options.format or "github"), end="")


def _percentage(text: str) -> float:
    try:
        number = float(text.removesuffix("%")) / 100
    except ValueError:
        number = -1.0
    if not (text.endswith("%") and 0 <= number < 100):
        raise UsageError(f"--fail-slower {text!r} is not a percentage of at least 0; give one such as 5%")
    return number


def _only_run(folder: Path, text: str) -> Run:
    from prunebench.runs import load_runs

    found = load_runs(folder, [text])
    if len(found) > 1:
        known = ", ".join(run.path.stem for run in found)
        raise UsageError(f"run {text!r} is saved {len(found)} times: {known}; name one of these")
    return found[0]
