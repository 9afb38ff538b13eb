"""Linear: equal steps."""

from __future__ import annotations

from prunebench.registry import schedule


@schedule("linear")
def linear(t: float) -> float:
    """t: the sparsity grows by the same amount each time."""
    return t
