"""One-shot: everything at once."""

from __future__ import annotations

from prunebench.registry import schedule


@schedule("one_shot")
def one_shot(t: float) -> float:
    """1 at every t: the final sparsity from the first pruning on."""
    return 1.0
