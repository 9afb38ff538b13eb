"""What the system says about how steadily it can time: clock, turbo, hyper-threads, a share of the CPU, neighbours.

Everything is read, nothing set; what the system doesn't tell is None.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Conditions:
    """governor: of the first CPU's clock; turbo, smt: whether on; quota: CPUs this process may use at a time, where
    limited; load: runnable processes over the last minute; stolen: share of time that a host took since it started.
    """

    governor: str | None
    turbo: bool | None
    smt: bool | None
    quota: float | None
    load: float | None
    stolen: float | None


def conditions(root: Path = Path("/")) -> Conditions:
    """The present conditions, as far as Linux tells under /sys and /proc."""
    cpu = root / "sys/devices/system/cpu"
    no_turbo, boost = _flag(cpu / "intel_pstate/no_turbo"), _flag(cpu / "cpufreq/boost")
    return Conditions(
        governor=_text(cpu / "cpu0/cpufreq/scaling_governor"),
        turbo=boost if no_turbo is None else not no_turbo,
        smt=_flag(cpu / "smt/active"),
        quota=_quota(root / "sys/fs/cgroup"),
        load=_load(root),
        stolen=_stolen(root),
    )


def noise(seconds: float = 0.4, clock: Callable[[], float] = time.perf_counter) -> float:
    """How far the same work varies here: nine tenths of its repetitions take at most so much longer than the median.

    The work is a loop of milliseconds in one thread, so what is seen are other processes, clock changes and a host.
    """
    times: list[float] = []
    start = now = clock()
    while now - start < seconds or len(times) < 20:
        _work()
        before, now = now, clock()
        times.append(now - before)
    return statistics.quantiles(times, n=10)[-1] / statistics.median(times) - 1


def _work() -> int:
    total = 0
    for number in range(40_000):
        total += number & 7
    return total


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, ValueError):
        return None


def _flag(path: Path) -> bool | None:
    return {"0": False, "1": True}.get(_text(path) or "")


def _quota(folder: Path) -> float | None:
    """CPUs by cgroup v2's cpu.max, else v1's two files."""
    words = (_text(folder / "cpu.max") or "").split()
    if len(words) != 2:
        words = [_text(folder / f"cpu/cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    try:
        limit, period = map(int, words)
    except ValueError:
        return None  # "max" is no limit
    return limit / period if limit > 0 and period > 0 else None


def _load(root: Path) -> float | None:
    words = (_text(root / "proc/loadavg") or "").split()
    try:
        return float(words[0]) if words else os.getloadavg()[0]
    except (ValueError, OSError, AttributeError):
        return None


def _stolen(root: Path) -> float | None:
    line = (_text(root / "proc/stat") or "").split("\n")[0].split()
    try:
        ticks = [int(word) for word in line[1:9]]
    except ValueError:
        return None
    total = sum(ticks)
    return ticks[7] / total if len(ticks) == 8 and total else None
