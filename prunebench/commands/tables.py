"""`prunebench tables [RUN…]`: writes tables, claims, plots and the documents' numbers; prints the main table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.commands import options as shared
from prunebench.commands.output import check_format, emit, show_table, tell, watched
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.runs import Run

_EXAMPLES = [
    "prunebench tables",
    "prunebench tables quick",
    "prunebench tables quick --format csv",
    "prunebench tables quick --json",
]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "write tables, claims and plots from saved runs and print the main table"
    more = "Nothing is trained, nothing timed. The files tell of every run, what is printed of those named."
    tables = shared.command(commands, "tables", help, run, _EXAMPLES, more)
    shared.add_runs(tables, "a saved run's name, number or path; none means all")
    shared.add_format(tables)
    shared.add_results(tables, "folder with runs/ and tables/")


def run(options: argparse.Namespace) -> int:
    """Write the files and print the table; returns the exit code."""
    from prunebench.claims.files import write_claims
    from prunebench.plots import write_plots
    from prunebench.runs import all_and_chosen
    from prunebench.tables.files import write_tables
    from prunebench.tables.front import write_front

    check_format(options.format)
    results = settings.results(options.results)
    # The files tell of every run, so that looking at one doesn't unmake the tables of the others.
    everything, chosen = all_and_chosen(results / "runs", options.runs)
    files, main_table = write_tables(everything, results / "tables", show=chosen)
    files += write_claims(everything, results)
    files += write_plots(everything, results / "plots", watch=watched)
    files += write_front(everything, results)
    if options.json:
        emit(options, results=results.resolve(), files=[f.relative_to(results) for f in files], **_numbers(chosen))
    else:
        show_table(main_table, options.format)
    tell(f"{len(files)} files in {results}")
    _refresh(results.parent, everything)
    return 0


def _numbers(runs: list[Run]) -> dict[str, Any]:
    from prunebench.tables.grid import detail, frame
    from prunebench.tables.layers import layer_details
    from prunebench.tables.networks import network_details

    grid = detail(frame(runs)) if any(one.facts for one in runs) else []
    return {"grid": grid, "networks": network_details(runs), "layers": layer_details(runs)}


def _refresh(project: Path, runs: list[Run]) -> None:
    """The generated blocks of the README and of docs/."""
    from prunebench.tables import readme

    for path in (project / "README.md", *sorted((project / "docs").glob("*.md"))):
        try:
            readme.refresh(path, runs)
        except UsageError as error:
            tell(f"prunebench: {path.name} is left as it was: {error}")
