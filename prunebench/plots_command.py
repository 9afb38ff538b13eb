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
    plots.add_argument("runs", nargs="*", metavar="RUN", help="as for tables; needs --to")
    plots.add_argument("--results", metavar="DIR", help="as for tables")
    plots.add_argument("--to", metavar="DIR", help="folder to write into; default plots/ beside runs/")
    plots.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    from prunebench.plots import write_plots
    from prunebench.runs import load_runs

    if options.runs and not options.to:
        raise UsageError("plots of some runs need --to DIR: in results/plots they would remove those of the others")
    results = Path(options.results) if options.results else settings.project_root() / "results"
    folder = Path(options.to) if options.to else results / "plots"
    print(f"{len(write_plots(load_runs(results / 'runs', options.runs), folder))} files in {folder}", file=sys.stderr)
    return 0
