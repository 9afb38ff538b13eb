"""AGP, automated gradual pruning (Zhu & Gupta 2017, "To prune, or not to prune", equation 1 with s_i = 0)."""

from __future__ import annotations

from prunebench.registry import schedule


@schedule("agp")
def agp(t: float) -> float:
    """1 - (1 - t)^3: fast while there is much to remove, slow at the end."""
    return 1.0 - (1.0 - t) ** 3
