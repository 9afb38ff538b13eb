"""`prunebench sweep`: fills the store with a grid's checkpoints. Exit code 1 where one failed or diverged."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench import profiles
from prunebench.commands import cells
from prunebench.commands.options import command, completed, names_of
from prunebench.commands.output import emit, tell

_LISTS = [axis for axis in profiles.LISTS if axis not in ("backends", "batch_sizes")]
_EXAMPLES = [
    "prunebench sweep --profile quick",
    "prunebench sweep --models lenet300,lenet5 --criteria random,l1 --sparsities 0.8,0.9,0.95 --seeds 0,1,2",
    "prunebench sweep --profile paper --datasets mnist --json",
]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "fill the store with a grid's checkpoints, without timing"
    sweep = command(commands, "sweep", help, run, _EXAMPLES, "What is stored already isn't trained again.")
    profile = sweep.add_argument("--profile", help=f"one of {', '.join(profiles.names())}")
    completed(profile, names_of("profiles"))
    for axis in _LISTS:
        cells.add_axis(sweep, f"--{axis.replace('_', '-')}", axis, metavar="LIST", help="comma-separated")
    cells.add_training(sweep)
    sweep.add_argument("--executor", default="local", help="local")


def run(options: argparse.Namespace) -> int:
    """Make the grid's checkpoints; returns the exit code."""
    from prunebench import executors
    from prunebench.progress import Progress

    axes = {axis: getattr(options, axis) for axis in _LISTS}
    plan = cells.plan(options, {k: v for k, v in axes.items() if v is not None}, options.profile)
    execute = executors.get(options.executor)
    progress = Progress(tell, 0.0)
    lab = cells.lab(options, progress)
    lab.failed = lambda cell, error: tell(f"prunebench: {cell.id} failed: {error}")
    progress.announce_cells(plan.cells, lab)
    failed = execute(plan.cells, lab)
    if options.json:
        ids = [cell.id for cell in plan.cells]
        emit(options, cells=ids, trained=lab.trained, reused=lab.reused, failed=failed)
    else:
        print(
            f"{len(plan.cells)} cells: {lab.trained} trained, {lab.reused} from the store, {failed} failed or diverged"
        )
    return 1 if failed else 0
