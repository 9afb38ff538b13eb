"""Where a sweep's cells are made: in this process, in several, or on a Ray cluster. `driving.sweep` tells them what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import UsageError, unknown

if TYPE_CHECKING:
    from prunebench.executors.base import Executor, Place
    from prunebench.pipeline import Lab

KNOWN = ("local", "ray")


@dataclass(frozen=True)
class Options:
    """What the command line says about an executor; None where it says nothing.

    jobs: local processes at once; address: of a Ray cluster; cpus_per_cell, gpus_per_cell: what a Ray task asks for.
    """

    name: str = "local"
    jobs: int | None = None
    address: str | None = None
    cpus_per_cell: float | None = None
    gpus_per_cell: float | None = None


def check(options: Options) -> None:
    """UsageError for an unknown executor, another's option, or one that isn't installed; connects to nothing."""
    if options.name not in KNOWN:
        raise unknown("executor", options.name, KNOWN)
    others = {"jobs": "local", "address": "ray", "cpus_per_cell": "ray", "gpus_per_cell": "ray"}
    for option, executor in others.items():
        if getattr(options, option) is not None and executor != options.name:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} belongs to --executor {executor}, not {options.name}; leave it out")
    if options.name == "ray":
        from prunebench.executors.ray import check_installed

        check_installed()


def open_executor(options: Options, lab: Lab, place: Place) -> Executor:
    """The executor asked for, ready to be given tasks; raises UsageError as `check` does, or where none answers."""
    check(options)
    if options.name == "ray":
        from prunebench.executors.ray import RayExecutor

        return RayExecutor(place, options.address or "auto", options.cpus_per_cell or 1.0, options.gpus_per_cell)
    from prunebench.executors.local import InProcess, Pool

    return InProcess(lab) if (options.jobs or 1) == 1 else Pool(place, options.jobs or 1)
