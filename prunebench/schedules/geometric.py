"""Geometric: the same fraction of what is left at every step (Frankle & Carbin 2019, iterative pruning)."""

from __future__ import annotations

import math

from prunebench.registry import schedule


def _check(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError("give a sparsity in [0, 1)")


@schedule("geometric", check=_check)
def geometric(t: float, sparsity: float = 0.9) -> float:
    """(1 - (1 - s)^t) / s for the final sparsity s, so that (1 - s)^t of the weights are left; t where s is 0.

    s is the sparsity that is being pruned to, filled in by whoever prunes.
    """
    if sparsity == 0:
        return t
    # expm1 and log1p, so that a small s loses no digits and t = 1 gives exactly 1.
    rate = math.log1p(-sparsity)
    return math.expm1(t * rate) / math.expm1(rate)
