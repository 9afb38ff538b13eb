"""`prunebench report [RUN…]`: its options, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prunebench import settings


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    report = commands.add_parser("report", help="one HTML page of the saved runs, to open in a browser or to send")
    report.add_argument("runs", nargs="*", metavar="RUN", help="a saved run's name, number or path; none means all")
    report.add_argument("--output", metavar="FILE", help="default report.html in the folder of results")
    report.add_argument("--results", metavar="DIR", help="folder with runs/; default results of the project")
    report.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    from prunebench.report import write_report
    from prunebench.runs import load_runs

    results = settings.results(options.results)
    page = write_report(load_runs(results / "runs", options.runs), Path(options.output or results / "report.html"))
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0
