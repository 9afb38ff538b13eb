"""Where a sweep's cells are made: an executor is a function of (cells, lab) that returns how many failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prunebench import pipeline
from prunebench.errors import PluginError, unknown

if TYPE_CHECKING:
    from prunebench.cell import Cell


def local(cells: Sequence[Cell], lab: pipeline.Lab) -> int:
    """One after another in this process; a cell that diverges or whose plugin fails doesn't stop the others."""
    failed = 0
    for cell in cells:
        try:
            failed += pipeline.artifact(cell, lab).meta["status"] != "ok"
        except PluginError as error:
            if lab.failed:
                lab.failed(cell, error)
            failed += 1
    return failed


_KNOWN: dict[str, Callable[[Sequence[Cell], pipeline.Lab], int]] = {"local": local}


def get(name: str) -> Callable[[Sequence[Cell], pipeline.Lab], int]:
    """The executor by name; UsageError lists the known ones."""
    if name not in _KNOWN:
        raise unknown("executor", name, _KNOWN)
    return _KNOWN[name]
