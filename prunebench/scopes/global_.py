"""Global: all layers' units are ranked together, so that layers end at different sparsities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.registry import scope

if TYPE_CHECKING:
    from prunebench.units import UnitSet


@scope("global")
def global_(sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """The lowest units over all sets until ⌊N·s + ½⌋ weights are gone; each set keeps its best unit.

    Where units weigh differently (filters), the total is the nearest that whole units allow.
    """
    from prunebench.sharing import together  # here, because a scope's name and parameters are checked without torch

    return together(sets, sparsity)
