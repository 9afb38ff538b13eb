"""`prunebench report [RUN…]`: its options, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prunebench import settings
from prunebench.commands import options as shared
from prunebench.commands.output import emit, watched


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "one HTML page of the saved runs, to open in a browser or to send"
    examples = ["prunebench report", "prunebench report mnist --output mnist.html"]
    report = shared.command(commands, "report", help, run, examples, "The page needs no network.")
    shared.add_runs(report, "a saved run's name, number or path; none means all")
    report.add_argument("--output", metavar="FILE", help="default report.html in the folder of results")
    shared.add_results(report)


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    from prunebench.report import write_report
    from prunebench.runs import load_runs

    results = settings.results(options.results)
    place = Path(options.output or results / "report.html")
    page = write_report(load_runs(results / "runs", options.runs), place, watch=watched)
    if options.json:
        emit(options, file=page.resolve(), bytes=page.stat().st_size)
    else:
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0
