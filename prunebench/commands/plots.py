"""`prunebench plots [RUN…]`: its options, and what they do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from prunebench import settings
from prunebench.errors import UsageError


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    plots = commands.add_parser("plots", help="draw saved runs as SVG and PNG, each with a CSV of what is drawn")
    plots.add_argument("runs", nargs="*", metavar="RUN", help="a saved run's name, number or path; needs --to")
    plots.add_argument("--results", metavar="DIR", help="folder with runs/; default results of the project")
    plots.add_argument("--to", metavar="DIR", help="folder to write into; default plots/ beside runs/")
    plots.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the plots; returns the exit code."""
    from prunebench.plots import write_plots
    from prunebench.runs import load_runs

    if options.runs and not options.to:
        raise UsageError("plots of some runs need --to DIR: in results/plots they would remove those of the others")
    results = settings.results(options.results)
    folder = Path(options.to) if options.to else results / "plots"
    files = write_plots(load_runs(results / "runs", options.runs), folder)
    print(f"{len(files)} files in {folder}", file=sys.stderr)
    return 0
