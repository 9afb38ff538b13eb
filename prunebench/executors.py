"""Where a sweep's cells are made: an executor is a function of (cells, lab) that returns how many failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prunebench import pipeline
from prunebench.errors import PluginError, unknown
from prunebench.store.locks import Busy

if TYPE_CHECKING:
    from prunebench.cell import Cell


def local(cells: Sequence[Cell], lab: pipeline.Lab) -> int:
    """One after another in this process; a cell that diverges or whose plugin fails doesn't stop the others.

    What other processes on the same store are making is left for later, and waited for only once nothing else is left:
    several sweeps of one grid share it.
    """
    failed, left, lab.patient = 0, list(cells), False
    while left:
        busy = []
        for cell in left:
            try:
                failed += pipeline.artifact(cell, lab).meta["status"] != "ok"
                lab.patient = False
            except Busy:
                busy.append(cell)
            except PluginError as error:
                if lab.failed:
                    lab.failed(cell, error)
                failed += 1
        lab.patient = len(busy) == len(left)  # nothing came of this round: wait for the first
        left = busy
    lab.patient = True
    return failed


_KNOWN: dict[str, Callable[[Sequence[Cell], pipeline.Lab], int]] = {"local": local}


def get(name: str) -> Callable[[Sequence[Cell], pipeline.Lab], int]:
    """The executor by name; UsageError lists the known ones."""
    if name not in _KNOWN:
        raise unknown("executor", name, _KNOWN)
    return _KNOWN[name]
