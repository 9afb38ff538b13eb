"""`prunebench compare RUN_A RUN_B`: its options, and what they do. Exit code 1 where --fail-slower fails."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.errors import UsageError, unknown

if TYPE_CHECKING:
    from prunebench.runs import Run


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    compare = commands.add_parser("compare", help="two saved runs case by case: what is faster, slower, more accurate")
    compare.add_argument("run_a", metavar="RUN_A", help="a saved run's name, number or path: the earlier one")
    compare.add_argument("run_b", metavar="RUN_B", help="the one that is compared with it; pytest-benchmark's own too")
    compare.add_argument("--across", metavar="LIST", default="", help="what may differ: engine, versions")
    compare.add_argument("--accuracy", action="store_true", help="accuracies and bytes only, whatever the machines")
    compare.add_argument("--fail-slower", metavar="5%", help="exit code 1 where a case or a mean takes longer by more")
    compare.add_argument("--format", default="github", help="how to print: github, csv, html or latex")
    compare.add_argument("--results", metavar="DIR", help="folder with runs/; default results of the project")
    compare.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the comparison; returns the exit code."""
    from prunebench.comparison.cases import cases_of
    from prunebench.comparison.judging import compare_runs, slower_than
    from prunebench.comparison.tables import comparison_text
    from prunebench.tables.rendering import FORMATS

    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    limit = None if options.fail_slower is None else _percentage(options.fail_slower)
    if limit is not None and options.accuracy:
        raise UsageError("--fail-slower is about time, which --accuracy leaves out; give one of them")
    results = settings.results(options.results)
    found = [_only_run(results / "runs", text) for text in (options.run_a, options.run_b)]
    apart = found[0].path.stem != found[1].path.stem
    a, b = (cases_of(one, one.path.stem if apart else str(one.path)) for one in found)
    across = [name.strip() for name in options.across.split(",") if name.strip()]
    result = compare_runs(a, b, across=across, accuracy=options.accuracy)
    print(comparison_text(result, options.format), end="")
    failures = [] if limit is None else slower_than(result, limit)
    for line in failures:
        print(f"prunebench: {line}", file=sys.stderr)
    return 1 if failures else 0


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
