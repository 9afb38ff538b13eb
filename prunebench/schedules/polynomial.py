"""Polynomial decay: AGP with any power (Zhu & Gupta 2017, equation 1; `PolynomialDecay` in TensorFlow's toolkit)."""

from __future__ import annotations

from prunebench.registry import schedule


def _check(power: float) -> None:
    if not 0 < power < float("inf"):
        raise ValueError("give a power above 0")


@schedule("polynomial", check=_check)
def polynomial(t: float, power: float = 3) -> float:
    """1 - (1 - t)^power: power 1 is linear, 3 is AGP; more prunes earlier."""
    return 1.0 - (1.0 - t) ** power
