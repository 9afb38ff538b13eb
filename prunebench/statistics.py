"""Verdicts over numbers: intervals, equivalence, ordering with Holm's correction, ratios against a range. No I/O.

A verdict is `holds`, `refuted` or `undecided`; that no difference was seen is never a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtr, stdtrit

HOLDS, REFUTED, UNDECIDED, UNSTABLE = VERDICTS = ("holds", "refuted", "undecided", "unstable")
Point = tuple[float, float]
_FINEST = 1e-4 / math.sqrt(12)  # deviation of rounding to a count out of 10,000: MNIST's and CIFAR-10's test images
_DIGITS = 12  # of a mean: accuracies are counts over a count, and what differs beyond is how floats are added


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval and the number of repetitions behind it."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float) -> Estimate:
    """The mean and its two-sided Student-t interval, infinite for a single value; ValueError for none."""
    found = np.asarray(values, dtype=float)
    if len(found) == 0:
        raise ValueError("an interval needs a value")
    middle = round(float(found.mean()), _DIGITS)
    if len(found) < 2:
        return Estimate(middle, -math.inf, math.inf, len(found))
    half = float(stdtrit(len(found) - 1, 0.5 + confidence / 2)) * _error(found)
    return Estimate(middle, round(middle - half, _DIGITS), round(middle + half, _DIGITS), len(found))


def _error(found: np.ndarray) -> float:
    """The standard error; equal values are no proof that nothing varies, only that no count out of 10,000 did."""
    return max(float(found.std(ddof=1)), _FINEST) / math.sqrt(len(found))


def within(estimate: Estimate, low: float, high: float) -> str:
    """`holds` where the whole interval lies in [low, high], `refuted` where none of it does, else `undecided`."""
    if low <= estimate.low and estimate.high <= high:
        return HOLDS
    return REFUTED if estimate.high < low or estimate.low > high else UNDECIDED


def equivalence(differences: Sequence[float], margin: float, alpha: float = 0.05) -> tuple[str, Estimate]:
    """Two one-sided tests at level alpha (Schuirmann 1987): is the mean of paired differences within ±margin?

    They are read off the 1 − 2·alpha interval: inside, `holds`; wholly outside, `refuted`; else `undecided`.
    """
    estimate = mean_interval(differences, 1 - 2 * alpha)
    return within(estimate, -margin, margin), estimate


def p_above(values: Sequence[float], bound: float) -> float:
    """One-sided p of a t-test against a mean of at most `bound`; 1 with fewer than two values."""
    found = np.asarray(values, dtype=float)
    if len(found) < 2:
        return 1.0
    distance = round(float(found.mean()) - bound, _DIGITS)
    return float(stdtr(len(found) - 1, -distance / _error(found)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: below alpha, the whole family errs at most that often."""
    adjusted = [1.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def ordering(
    family: Sequence[Sequence[float]], bound: float, alpha: float = 0.05, least: int = 3
) -> list[tuple[str, float]]:
    """Per member (paired differences): is their mean above `bound`, corrected by Holm over the whole family?

    Returns (verdict, adjusted p of the side that it fell to). A member with fewer than `least` differences counts
    with p = 1: that a family isn't measured whole must not make its tests easier.
    """
    enough = [len(own) >= least for own in family]
    above = holm([p_above(own, bound) if ok else 1.0 for own, ok in zip(family, enough, strict=True)])
    below = holm([p_above([-d for d in own], -bound) if ok else 1.0 for own, ok in zip(family, enough, strict=True)])
    return [
        (HOLDS, a) if a <= alpha else (REFUTED, b) if b <= alpha else (UNDECIDED, min(a, b))
        for a, b in zip(above, below, strict=True)
    ]


def geometric(ratios: Sequence[Estimate]) -> Estimate:
    """Repeated ratios as one: the geometric mean, from the lowest of their lower ends to the highest of their upper."""
    if not ratios:
        raise ValueError("a mean needs a ratio")
    value = math.exp(sum(math.log(r.value) for r in ratios) / len(ratios))
    return Estimate(value, min(r.low for r in ratios), max(r.high for r in ratios), sum(r.n for r in ratios))


def quotient(first: Estimate, second: Estimate) -> Estimate:
    """first / second, both against one baseline; by interval arithmetic, so whatever errors the two share."""
    return Estimate(first.value / second.value, first.low / second.high, first.high / second.low, first.n)


def inverse(ratio: Estimate) -> Estimate:
    """1 / ratio: a speed-up as a slow-down."""
    return Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.n)


def reaching_one(ratio: Estimate) -> Estimate:
    """A ratio whose difference from 1 could not be told: its interval holds 1 as well."""
    return Estimate(ratio.value, min(ratio.low, 1.0), max(ratio.high, 1.0), ratio.n)


def crossing(first: Point, second: Point, level: float) -> float:
    """Where the line through two points is at `level`."""
    (x0, y0), (x1, y1) = first, second
    return x0 + (x1 - x0) * (level - y0) / (y1 - y0)


def interpolate(points: Sequence[Point], x: float) -> float | None:
    """y at x, linear between the neighbouring (x, y); None outside the points: nothing is extrapolated."""
    ordered = sorted(points)
    for (x0, y0), (x1, y1) in pairwise(ordered):
        if x0 <= x <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return ordered[0][1] if len(ordered) == 1 and ordered[0][0] == x else None


def overall(verdicts: Sequence[str], decides: str = "all") -> str:
    """One verdict of many. "all": one refuted refutes, all must hold; "any": one that holds is enough."""
    decisive, other = (REFUTED, HOLDS) if decides == "all" else (HOLDS, REFUTED)
    if decisive in verdicts:
        return decisive
    if verdicts and set(verdicts) == {other}:
        return other
    return UNSTABLE if UNSTABLE in verdicts else UNDECIDED
