"""Paired timing: alternatives interleaved in blocks, the baseline twice (A/A), a bootstrap interval, a verdict.

A block times every arm once in a seeded random order, so that a machine that slows down slows all alike; the
speed-up is the median over blocks of the ratio within a block.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

ARM_SECONDS = 0.005  # an arm's inner loop lasts at least this long, far above the timer's resolution
SLOW_SECONDS = 0.1
MIN_BLOCKS = 6  # fewer can't give a 95 % interval of a median: (1/2)^5 > 5 %
PRECISION = 0.03  # stop once the interval is within ±3 %
MARGIN = 0.01  # a difference below 1 % is never called one
CONTROL = "a/a"  # the baseline, timed a second time in every block


@runtime_checkable
class SelfTimed(Protocol):
    """An arm that measures its own loop, in another process for example."""

    def seconds_per_call(self, loops: int) -> float:
        """Seconds per call over so many calls."""


Arm = Callable[[], Any] | SelfTimed


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline: speed-up (baseline time / arm time), its 95 % interval, and the verdict."""

    speedup: float
    low: float
    high: float
    verdict: str  # faster, slower, inconclusive or unstable
    baseline: str
    blocks: int
    seconds: float  # the arm's median time per call
    baseline_seconds: float
    ratios: list[float] = field(repr=False, default_factory=list)  # block by block
    control_ratios: list[float] = field(repr=False, default_factory=list)  # the same of the arm that was timed twice


def compare(arms: Mapping[str, Arm], baseline: str, *, seconds: float = 1.0, seed: int = 0) -> dict[str, Comparison]:
    """Each arm but the baseline, timed against it in interleaved blocks for about `seconds` (MIN_BLOCKS at least)."""
    samples = sample(arms, baseline, seconds=seconds, seed=seed)
    return judge_all(samples, baseline, baseline, seed)


def sample(
    arms: Mapping[str, Arm],
    control: str,
    *,
    seconds: float = 1.0,
    seed: int = 0,
    least: int = MIN_BLOCKS,
    settle: float = 0.0,
    arm_seconds: float = ARM_SECONDS,
) -> dict[str, list[float]]:
    """Seconds per call of every arm, one sample a block, and of the control arm a second time under "a/a".

    Stops after `seconds`, or where every ratio to the control is precise, but not before `least` blocks. settle:
    seconds to sleep before an arm's turn, so that threads of another runtime that spin after their work fall asleep;
    the arm then runs its loop untimed first. arm_seconds: how long a loop lasts at least.
    """
    names = [*arms, CONTROL]
    calls = {**arms, CONTROL: arms[control]}
    sizes = {name: _sized(call, arm_seconds) for name, call in calls.items()}
    rng = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {name: [] for name in names}
    enabled = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while True:
            for name in rng.permutation(names):
                loops, slow = sizes[name]
                if settle:
                    time.sleep(settle)
                    if not slow:  # wakes the arm's own threads and caches, of a long call a small part
                        seconds_per_call(calls[name], loops)
                samples[name].append(seconds_per_call(calls[name], loops))
            blocks = len(samples[CONTROL])
            late = time.perf_counter() >= end
            if blocks >= least and (late or (blocks % 8 == 0 and _precise(samples, control))):
                return samples
    finally:
        if enabled:
            gc.enable()


def judge_all(
    samples: Mapping[str, Sequence[float]], baseline: str, control: str, seed: int = 0
) -> dict[str, Comparison]:
    """Every sampled arm but the baseline against it; `control` is the arm that was timed twice."""
    stability = judge_control(samples[control], samples[CONTROL], seed)
    twice = np.exp(ratio_logs(samples[control], samples[CONTROL])).tolist()
    return {
        name: replace(judge(samples[baseline], values, stability, baseline, seed), control_ratios=twice)
        for name, values in samples.items()
        if name not in (baseline, CONTROL)
    }


def _sized(arm: Arm, arm_seconds: float) -> tuple[int, bool]:
    """(calls of the inner loop, whether even one is long)."""
    once = seconds_per_call(arm, 1)
    if once < SLOW_SECONDS:  # a slow call is its own warm-up, and needs no loop whatever its second time is
        once = seconds_per_call(arm, 1)
    return max(1, math.ceil(arm_seconds / max(once, 1e-7))), once >= SLOW_SECONDS


def seconds_per_call(arm: Arm, loops: int) -> float:
    """Seconds per call of an arm over a loop: timed here, or by the arm itself."""
    if isinstance(arm, SelfTimed):
        return arm.seconds_per_call(loops)
    start = time.perf_counter()
    for _ in range(loops):
        arm()
    return (time.perf_counter() - start) / loops


def _precise(samples: Mapping[str, Sequence[float]], baseline: str) -> bool:
    base = samples[baseline]
    for name, values in samples.items():
        if name != baseline:
            middle, low, high = interval(ratio_logs(base, values), 0)
            if high - middle > math.log1p(PRECISION) or middle - low > math.log1p(PRECISION):
                return False
    return True


def ratio_logs(base: Sequence[float], arm: Sequence[float]) -> np.ndarray:
    """log(baseline / arm) per block."""
    return np.log(np.asarray(base)) - np.log(np.asarray(arm))


def interval(logs: np.ndarray, seed: int, resamples: int = 1000) -> tuple[float, float, float]:
    """Median and its 95 % percentile bootstrap interval over blocks."""
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(logs, (resamples, len(logs))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(logs)), float(low), float(high)


def judge_control(base: Sequence[float], again: Sequence[float], seed: int) -> tuple[float, bool]:
    """The A/A control: half-width of its interval (log units), and whether the run is stable by it."""
    _, low, high = interval(ratio_logs(base, again), seed)
    stable = low <= math.log1p(MARGIN) and high >= -math.log1p(MARGIN)
    return (high - low) / 2, stable


def judge(
    base: Sequence[float], arm: Sequence[float], control: tuple[float, bool], baseline: str, seed: int
) -> Comparison:
    """The comparison that samples and their A/A control give; the verdict follows by rule alone."""
    logs = ratio_logs(base, arm)
    middle, low, high = interval(logs, seed)
    half_width, stable = control
    clear = math.log1p(MARGIN) + half_width
    if not stable or _drifts(logs, clear):
        verdict = "unstable"
    elif len(logs) < MIN_BLOCKS:
        verdict = "inconclusive"
    elif low > clear:
        verdict = "faster"
    elif high < -clear:
        verdict = "slower"
    else:
        verdict = "inconclusive"
    return Comparison(
        math.exp(middle),
        math.exp(low),
        math.exp(high),
        verdict,
        baseline,
        len(logs),
        float(np.median(arm)),
        float(np.median(base)),
        np.exp(logs).tolist(),
    )


def _drifts(logs: np.ndarray, clear: float) -> bool:
    """True where the ratio's first and second half differ by more than 10 % and by more than the spread within them."""
    if len(logs) < 2 * MIN_BLOCKS:
        return False
    first, second = np.array_split(logs, 2)
    # Within the halves: over the whole run a shift would be its own spread, and never be seen.
    spread = max(np.subtract(*np.percentile(half, [75, 25])) for half in (first, second))
    return bool(abs(np.median(first) - np.median(second)) > max(math.log(1.1), clear, 1.5 * spread))
