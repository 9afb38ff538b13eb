"""Like: the proportions that another criterion and scope would give, for controls (Blalock et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.controls import check_copied
from prunebench.registry import scope

if TYPE_CHECKING:
    from prunebench.units import UnitSet


@scope("like", check=check_copied)
def like(sets: Sequence[UnitSet], sparsity: float, criterion: str = "l1", scope: str = "global") -> list[int]:
    """The copied scope's counts on these sets, which must hold the copied criterion's scores.

    `pb.prune` and `pb.Pruner` see to that: they score with both criteria, this one's counts and their own order.
    """
    from prunebench.scopes import share_out  # the package imports its members

    return share_out(scope.replace("/", ":"), sets, sparsity)
