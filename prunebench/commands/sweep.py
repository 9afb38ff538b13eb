"""`prunebench sweep`: a grid's checkpoints, trained here or on a cluster. Exit code 1 where a cell couldn't be made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import profiles, settings
from prunebench.commands import cells
from prunebench.commands.options import command, number
from prunebench.commands.output import emit, tell
from prunebench.errors import UsageError
from prunebench.untrusted import plain_line

if TYPE_CHECKING:
    from prunebench.executors import Options
    from prunebench.executors.base import Place
    from prunebench.executors.driving import Tally

_EXAMPLES = [
    "prunebench sweep --profile quick",
    "prunebench sweep --models lenet300,lenet5 --criteria random,l1 --sparsities 0.8,0.9,0.95 --seeds 0,1,2 --jobs 2",
    "prunebench sweep --profile paper --datasets mnist --json",
    "prunebench sweep --profile paper --executor ray --address auto --store s3://bucket/store",
]
_SHOWN = 20  # failures repeated at the end; all of them were said when they happened


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "fill the store with a grid's checkpoints, without timing"
    sweep = command(commands, "sweep", help, run, _EXAMPLES, "What is stored already isn't trained again.")
    cells.add_lists(sweep)
    cells.add_training(sweep)
    add_executor(sweep)


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Who trains, and how much at once."""
    parser.add_argument("--executor", default="local", help="local: this machine; ray: a Ray cluster. Default local")
    parser.add_argument("--jobs", metavar="N", help="local: cells at once, in processes sharing the cores; default 1")
    parser.add_argument(
        "--address", metavar="A", help="ray: the cluster's address; auto (default), or local to start one here"
    )
    parser.add_argument("--cpus-per-cell", metavar="N", help="ray: CPUs that a cell takes; default 1")
    parser.add_argument(
        "--gpus-per-cell", metavar="N", help="ray: GPUs or a share of one, such as 0.5; default 1 where there are GPUs"
    )
    parser.add_argument("--retries", metavar="N", default="2", help="further tries where a worker dies; default 2")


def run(options: argparse.Namespace) -> int:
    """Make what is missing; returns the exit code."""
    from prunebench import executors
    from prunebench.executors.driving import sweep
    from prunebench.progress import Progress

    plan = cells.plan_of_lists(options)
    chosen = executor_options(options)
    retries = profiles.whole_number("--retries", options.retries, 0)
    executors.check(chosen)
    settings.check_training(options.device, options.logs, options.tensorboard)
    remote = chosen.name != "local"
    progress = Progress(tell, 0.0)
    lab = cells.lab(options, progress, device="cpu" if remote else None)
    lab.failed = lambda cell, error: tell(f"prunebench: {cell.id} failed: {error}")
    executor = executors.open_executor(chosen, lab, _place(options))
    try:
        progress.workers = executor.slots
        if not progress.workers:
            tell(f"prunebench: no node can take a cell yet, which needs {executor.needs}; waiting for one")
        # A cluster's nodes are not this machine: what a step takes there is learnt from the first cells.
        progress.announce_cells(plan.cells, lab, timed=not remote)
        tally = sweep(plan.cells, lab, executor, retries, progress.under_way)
    finally:
        executor.close()
    return _told(options, tally, [cell.id for cell in plan.cells])


def executor_options(options: argparse.Namespace) -> Options:
    """The options of `add_executor` with their numbers checked; raises UsageError."""
    from prunebench.executors import Options

    gpus = number("--gpus-per-cell", options.gpus_per_cell, 0.0)
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise UsageError(f"--gpus-per-cell {gpus:g} can't be used; above 1 it must be a whole number")
    return Options(
        options.executor,
        None if options.jobs is None else profiles.whole_number("--jobs", options.jobs, 1),
        options.address,
        number("--cpus-per-cell", options.cpus_per_cell, 0.01),
        gpus,
    )


def _place(options: argparse.Namespace) -> Place:
    from prunebench.executors.base import Place

    root = settings.project_root()
    store = settings.store_place(options.store, root)
    return Place(
        store if "://" in store else str(Path(store).absolute()),
        str(settings.data(options.data, root).absolute()),
        options.device,
        str(Path(options.logs).expanduser().absolute()) if options.logs else None,
        options.tensorboard,
    )


def _told(options: argparse.Namespace, tally: Tally, ids: list[str]) -> int:
    failed = list(tally.failed.items())
    if len(failed) > 1:
        for cell, why in failed[:_SHOWN]:
            tell(f"prunebench: not made: {cell.id}: {plain_line(why)}")
        if len(failed) > _SHOWN:
            tell(f"prunebench: and {len(failed) - _SHOWN} more")
    if options.json:
        reasons = {cell.id: why for cell, why in failed}
        emit(options, cells=ids, trained=tally.trained, reused=tally.stored, failed=reasons)
    else:
        counts = f"{tally.trained} trained, {tally.stored} from the store, {len(failed)} failed or diverged"
        print(f"{len(ids)} cells: {counts}")
    return 1 if failed else 0
