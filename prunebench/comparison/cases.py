"""The cases of a saved run as a comparison needs them: the grid's, the questions', and plain pytest-benchmark files."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunebench.cell import per_mille
from prunebench.errors import UsageError
from prunebench.facts import case_of
from prunebench.runs import Run
from prunebench.untrusted import parse_json, plain_line, read_text

Interval = tuple[float, float, float]  # low, middle, high of a natural logarithm
_RESAMPLES = 1000


@dataclass(frozen=True)
class Side:
    """One case as one run saw it; `over`: the log of its speed-up over each dense way timed in the same blocks.

    A plain file knows no dense way: there it is the log of one over its seconds, under an empty name.
    """

    key: Hashable
    name: str
    group: str  # what it is summed up with: the backend, or the question and the backend
    cell: Hashable = None  # what its accuracy belongs to; None where it has none
    status: str = "ok"
    over: dict[str, Interval] = field(default_factory=dict)
    against: str = ""  # the fastest of them, which is the case's baseline, with its version where it has one
    stable: bool = True
    seconds: float | None = None
    accuracy: float | None = None
    disk_bytes: float | None = None
    resident_bytes: float | None = None


@dataclass(frozen=True)
class Cases:
    """All cases of a run, and its controls: dense ways timed against the dense baseline, which no build changes."""

    label: str
    machine: dict[str, Any]
    complete: bool
    plain: bool
    sides: dict[Hashable, Side]
    controls: dict[Hashable, Side] = field(default_factory=dict)
    threads: tuple[int, ...] = ()


def cases_of(run: Run, label: str) -> Cases:
    """A run's cases by identity; a file without prunebench's facts is read as pytest-benchmark's own."""
    if not run.cases:
        return _plain(run, label)
    grid = [_grid_side(facts) for facts in run.facts]
    sides = {side.key: side for side in [*grid, *map(_answer_side, run.answers)]}
    controls = {side.key: side for side in grid if side.group == "dense"}
    for facts in run.answers:
        controls.update({side.key: side for side in _dense_arms(facts)})
    threads = tuple(sorted({f["threads"] for f in (*run.facts, *run.answers)}))
    return Cases(label, run.machine, run.complete, False, sides, controls, threads)


def _grid_side(facts: dict[str, Any]) -> Side:
    case = case_of(facts)
    name = f"{case.id}-t{facts['threads']} {case.cell.recipe.name}"  # an id alone doesn't say the recipe
    return _side(facts, (case, facts["threads"]), name, case.backend, case.cell)


def _answer_side(facts: dict[str, Any]) -> Side:
    name = _answer_id(facts)
    return _side(facts, (facts["question"], name), name, f"{facts['question']} {facts['backend']}", None)


def _answer_id(facts: dict[str, Any]) -> str:
    what = facts["layer"]["id"] if facts["question"] == "layers" else facts["cell"]["model"]
    tail = f"s{per_mille(facts['cell']['sparsity'])}-{facts['backend']}-b{facts['batch_size']}-t{facts['threads']}"
    return f"{what}-{tail}"


def _side(facts: dict[str, Any], key: Hashable, name: str, group: str, cell: Hashable) -> Side:
    arms = facts.get("arms") or {}
    against = _versioned(facts["baseline"] or "", arms)
    over = {}
    if (speed := _logs(facts)) is not None:
        over[against] = speed
        for arm in _dense_arms(facts):
            if arm.over:  # both are over the baseline; what they share makes this interval too wide, never too narrow
                over[arm.name] = combined(arm.over[against], speed)
    return Side(
        key,
        name,
        group,
        cell,
        facts["status"],
        over,
        against,
        _stable(facts),
        facts["latency_seconds"],
        facts["accuracy"],
        facts["disk_bytes"],
        facts["resident_bytes"],
    )


def _dense_arms(facts: dict[str, Any]) -> list[Side]:
    """The other dense ways that a network was timed through, each against the same baseline in the same blocks."""
    arms = facts.get("arms") or {}
    against = _versioned(facts["baseline"] or "", arms)
    ours = (facts["backend"], "csr_unpruned", facts["baseline"])
    found = []
    for name, arm in arms.items():
        speed = _logs(arm) if name not in ours and arm["status"] == "ok" else None
        if speed is not None:
            named = _versioned(name, arms)
            key = (_answer_id(facts), named)
            found.append(Side(key, named, named, over={against: speed}, against=against, stable=_stable(arm)))
    return found


def _versioned(arm: str, arms: dict[str, Any]) -> str:
    """The arm as it was run: another version, or a process that it shares or doesn't, is another way to run it."""
    facts = arms.get(arm) or {}
    named = f"{arm} {facts['version']}" if facts.get("version") else arm
    return f"{named} in its own process" if facts.get("process") == "own" else named


def _stable(facts: dict[str, Any]) -> bool:
    return bool(facts["verdict"] != "unstable")


def combined(a: Interval, b: Interval) -> Interval:
    """The interval of b − a from the intervals of both, which may be lopsided (Zou and Donner 2008, MOVER)."""
    middle = b[1] - a[1]
    return (
        middle - math.hypot(b[1] - b[0], a[2] - a[1]),
        middle,
        middle + math.hypot(b[2] - b[1], a[1] - a[0]),
    )


def _logs(facts: dict[str, Any]) -> Interval | None:
    low, middle, high = (facts[name] for name in ("speedup_low", "speedup", "speedup_high"))
    if not (low and middle and high):  # null, or a zero that no timing gives
        return None
    return math.log(min(low, middle)), math.log(middle), math.log(max(high, middle))


def _plain(run: Run, label: str) -> Cases:
    """pytest-benchmark's own file: cases by full name, seconds from the saved samples or the median and quartiles."""
    try:
        content = parse_json(read_text(run.path))
        found = [_plain_side(b) for b in content["benchmarks"]]
        machine = _plain_machine(content["machine_info"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{run.path} holds no results that can be compared ({plain_line(error)}); name another run"
        ) from error
    if not found:
        raise UsageError(f"{run.path} holds no result; name another run")
    return Cases(label, machine, True, True, {side.key: side for side in found})


def _plain_machine(info: dict[str, Any]) -> dict[str, Any]:
    cpu = info.get("cpu") or {}
    return {
        "cpu": cpu.get("brand_raw") or info.get("processor"),
        "cores": cpu.get("count"),
        "architecture": info.get("machine"),
        "system": info.get("system"),
        "versions": {"python": f"{info.get('python_implementation')} {info.get('python_version')}"},
    }


def _plain_side(benchmark: dict[str, Any]) -> Side:
    name, stats = str(benchmark["fullname"]), benchmark["stats"]
    low, middle, high = _median(stats)
    if not (low > 0 and math.isfinite(high)):
        raise ValueError(f"{name} took {middle!r} s")
    speed = (-math.log(high), -math.log(middle), -math.log(low))
    return Side(name, name, str(benchmark.get("group") or "all"), over={"": speed}, seconds=middle)


def _median(stats: dict[str, Any]) -> tuple[float, float, float]:
    """(low, median, high) in seconds, 95 %: bootstrap over the rounds where they were saved, else from the quartiles.

    The standard error of a median is 1.25 IQR / (1.35 √n) (McGill, Tukey and Larsen 1978, Variations of box plots).
    """
    data = np.asarray(stats.get("data") or [], dtype=float)
    if len(data) > 1:
        rng = np.random.default_rng(0)
        medians = np.median(rng.choice(data, (_RESAMPLES, len(data))), axis=1)
        low, high = np.percentile(medians, [2.5, 97.5])
        return float(low), float(np.median(data)), float(high)
    middle, iqr, rounds = float(stats["median"]), float(stats["iqr"]), int(stats["rounds"])
    if rounds < 1 or not (middle > 0 and iqr >= 0):
        raise ValueError(f"a median of {middle!r} s over {rounds} rounds")
    factor = math.exp(1.96 * 1.25 * iqr / (1.35 * math.sqrt(rounds)) / middle)  # on the log scale: stays above zero
    return middle / factor, middle, middle * factor
