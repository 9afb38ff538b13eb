"""`prunebench sweep`: a grid's checkpoints, trained here or on a cluster. Exit code 1 where a cell couldn't be made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import profiles, settings
from prunebench.commands.grids import add_lengths, add_lists, add_places, lab_of, plan_of_lists, stderr
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.executors import Options
    from prunebench.executors.base import Place
    from prunebench.executors.driving import Tally

_SHOWN = 20  # failures repeated at the end; all of them were said when they happened


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    sweep = commands.add_parser("sweep", help="fill the store with a grid's checkpoints, without timing")
    add_lists(sweep)
    add_lengths(sweep)
    add_places(sweep)
    add_executor(sweep)
    sweep.set_defaults(run=run)


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

    plan = plan_of_lists(options)
    chosen = executor_options(options)
    retries = profiles.whole_number("--retries", options.retries, 0)
    executors.check(chosen)
    settings.check_training(options.device, options.logs, options.tensorboard)
    remote = chosen.name != "local"
    progress = Progress(stderr, 0.0)
    lab = lab_of(options, progress, device="cpu" if remote else None)
    lab.failed = lambda cell, error: stderr(f"prunebench: {cell.id} failed: {error}")
    executor = executors.open_executor(chosen, lab, _place(options))
    try:
        progress.workers = executor.slots
        if not progress.workers:
            stderr(f"prunebench: no node can take a cell yet, which needs {executor.needs}; waiting for one")
        # A cluster's nodes are not this machine: what a step takes there is learnt from the first cells.
        progress.announce_cells(plan.cells, lab, timed=not remote)
        tally = sweep(plan.cells, lab, executor, retries, progress.waits)
    finally:
        executor.close()
    return _told(tally, len(plan.cells))


def executor_options(options: argparse.Namespace) -> Options:
    """The options of `add_executor` with their numbers checked; raises UsageError."""
    from prunebench.executors import Options

    gpus = _share("--gpus-per-cell", options.gpus_per_cell, 0.0)
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise UsageError(f"--gpus-per-cell {gpus:g} can't be used; above 1 it must be a whole number")
    return Options(
        options.executor,
        None if options.jobs is None else profiles.whole_number("--jobs", options.jobs, 1),
        options.address,
        _share("--cpus-per-cell", options.cpus_per_cell, 0.01),
        gpus,
    )


def _share(flag: str, text: str | None, low: float) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number; give one of at least {low:g}") from None
    if not low <= value < float("inf"):
        raise UsageError(f"{flag} {text} can't be used; give a number of at least {low:g}")
    return value


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


def _told(tally: Tally, cells: int) -> int:
    failed = list(tally.failed.items())
    if len(failed) > 1:
        for cell, why in failed[:_SHOWN]:
            stderr(f"prunebench: not made: {cell.id}: {why}")
        if len(failed) > _SHOWN:
            stderr(f"prunebench: and {len(failed) - _SHOWN} more")
    print(f"{cells} cells: {tally.trained} trained, {tally.stored} from the store, {len(failed)} failed or diverged")
    return 1 if failed else 0
