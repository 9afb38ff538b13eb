"""Cosine: half a period (Loshchilov & Hutter 2017, "SGDR", equation 5, with the sparsity in the rate's place)."""

from __future__ import annotations

import math

from prunebench.registry import schedule


@schedule("cosine")
def cosine(t: float) -> float:
    """(1 - cos πt) / 2: slow at both ends."""
    return (1.0 - math.cos(math.pi * t)) / 2.0
