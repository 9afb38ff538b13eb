"""`prunebench plots [RUN…]`: its options, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prunebench import settings
from prunebench.commands import options as shared
from prunebench.commands.output import emit, tell, watched
from prunebench.errors import UsageError


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "draw saved runs as SVG and PNG, each with a CSV of what is drawn"
    plots = shared.command(commands, "plots", help, run, ["prunebench plots", "prunebench plots mine --to plots"])
    shared.add_runs(plots, "a saved run's name, number or path; needs --to")
    shared.add_results(plots)
    plots.add_argument("--to", metavar="DIR", help="folder to write into; default plots/ beside runs/")


def run(options: argparse.Namespace) -> int:
    """Write the plots; returns the exit code."""
    from prunebench.plots import write_plots
    from prunebench.runs import load_runs

    if options.runs and not options.to:
        raise UsageError("plots of some runs need --to DIR: in results/plots they would remove those of the others")
    results = settings.results(options.results)
    folder = Path(options.to) if options.to else results / "plots"
    files = write_plots(load_runs(results / "runs", options.runs), folder, watch=watched)
    if options.json:
        emit(options, folder=folder.resolve(), files=[f.relative_to(folder) for f in files])
    tell(f"{len(files)} files in {folder}")
    return 0
