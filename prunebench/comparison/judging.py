"""Two saved runs compared case by case: how much faster, with an interval, and a verdict that follows by rule.

Runs made at different times aren't interleaved, so the seconds of one against the other's would measure the machine's
mood as well. What is compared is the speed-up over the dense baseline, which was timed in the same blocks of its run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunebench.comparison.cases import Cases, Interval, Side, combined
from prunebench.errors import UsageError, unknown
from prunebench.timing import MARGIN

ACROSS = ("engine", "versions")  # what may differ between two runs where the user says so
JUDGED = ("faster", "slower", "inconclusive")
UNJUDGED = ("unstable", "other baseline", "not timed")
_RESAMPLES = 2000


@dataclass(frozen=True)
class Pair:
    """A case in two runs, or in one of them; `log_change` > 0 where the second is faster."""

    name: str
    group: str
    a: Side | None
    b: Side | None
    verdict: str
    log_change: Interval | None = None
    against: str | None = None  # the dense way that both speed-ups are over

    @property
    def points(self) -> float | None:
        """The change of accuracy in points of percent."""
        if self.a is None or self.b is None or self.a.accuracy is None or self.b.accuracy is None:
            return None
        return 100 * (self.b.accuracy - self.a.accuracy)


@dataclass(frozen=True)
class Result:
    """A comparison; `margin` is how far (log units) an interval must clear 1, `controls` how many cases it is from."""

    a: Cases
    b: Cases
    pairs: tuple[Pair, ...]  # what changed most comes first
    margin: float
    controls: int
    differing: dict[str, tuple[str, str]]
    timed: bool = True

    @property
    def both(self) -> list[Pair]:
        """The cases of both runs."""
        return [p for p in self.pairs if p.a is not None and p.b is not None]

    def groups(self) -> dict[str, list[Pair]]:
        """The cases of both runs by group, in order of name."""
        found: dict[str, list[Pair]] = {}
        for pair in self.both:
            found.setdefault(pair.group, []).append(pair)
        return dict(sorted(found.items()))


def compare_runs(a: Cases, b: Cases, across: Collection[str] = (), accuracy: bool = False) -> Result:
    """Compare B with A; UsageError where their timings can't be: other machines, thread counts, or no case in common.

    across: of ACROSS, what may differ. accuracy: leave timings out, so that any two runs will do.
    """
    for name in across:
        if name not in ACROSS:
            raise unknown("--across", name, ACROSS, "timings of two CPUs or thread counts are never compared")
    if a.plain != b.plain:
        with_facts, without = (b, a) if a.plain else (a, b)
        raise UsageError(
            f"run {with_facts.label} was saved by prunebench's cases, run {without.label} by other benchmarks; "
            "compare two of a kind"
        )
    if a.plain and accuracy:
        raise UsageError(f"runs {a.label} and {b.label} hold no accuracies; leave --accuracy out")
    differing = _differing(a.machine, b.machine)
    if not accuracy:
        _refuse_mixed(a, b, differing, across)
    sides = [_by_checkpoint(c) if accuracy else c.sides for c in (a, b)]
    if not set(sides[0]) & set(sides[1]):
        names = [{side.name for side in found.values()} for found in sides]
        why = "their recipes differ" if names[0] & names[1] else f"{len(sides[0])} and {len(sides[1])} others"
        raise UsageError(f"runs {a.label} and {b.label} have no case in common ({why}); name two runs of the same grid")
    margin, controls = _margin(a, b, differing) if not accuracy else (0.0, 0)
    pairs = [_pair(sides[0].get(key), sides[1].get(key), margin, accuracy) for key in {**sides[0], **sides[1]}]
    pairs = _with_other_recipes(pairs)
    return Result(a, b, tuple(sorted(pairs, key=_order(accuracy))), margin, controls, differing, not accuracy)


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """{what: (in A, in B)} of everything that timings depend on."""
    found = {}
    for name in ("cpu", "cores", "architecture", "system", "engine"):
        if a.get(name) != b.get(name) or (name == "cpu" and a.get(name) is None):
            found[name] = (_text(a.get(name)), _text(b.get(name)))
    versions = [dict(machine.get("versions") or {}) for machine in (a, b)]
    ours = [v.pop("prunebench", None) for v in versions]
    if ours[0] != ours[1] and "engine" not in found:  # another release has other kernels, or calls them otherwise
        found["engine"] = (f"prunebench {ours[0]}", f"prunebench {ours[1]}")
    changed = sorted(k for k in {**versions[0], **versions[1]} if versions[0].get(k) != versions[1].get(k))
    if changed:
        found["versions"] = tuple(", ".join(f"{k} {v.get(k)}" for k in changed) for v in versions)  # type: ignore[assignment]
    if not found and a.get("id") != b.get("id"):
        found["id"] = (_text(a.get("id")), _text(b.get("id")))
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(value[k]) for k in sorted(value, reverse=True)) or "off"
    return "unknown" if value is None else str(value)


def _refuse_mixed(a: Cases, b: Cases, differing: dict[str, tuple[str, str]], across: Collection[str]) -> None:
    clashes = {name: both for name, both in differing.items() if name not in across}
    if clashes:
        said = "; ".join(f"{name}: {one} and {other}" for name, (one, other) in clashes.items())
        ids = (a.machine.get("id"), b.machine.get("id"))
        where = (
            f"run {a.label} was timed on {ids[0] or 'one machine'}, run {b.label} on {ids[1] or 'another'} ({said}); "
        )
        allowed = [name for name in clashes if name in ACROSS]
        if len(allowed) == len(clashes):
            remedy = f"--across {','.join(sorted({*across, *allowed}))} compares them all the same"
        else:
            remedy = "timings of two machines can't be compared"
        raise UsageError(where + remedy + ("" if a.plain else "; --accuracy compares accuracies and bytes only"))
    if a.threads and b.threads and not set(a.threads) & set(b.threads):
        raise UsageError(
            f"run {a.label} was timed with {_threads(a)}, run {b.label} with {_threads(b)}; timings of different "
            "thread counts can't be compared; --accuracy compares accuracies and bytes only"
        )


def _threads(cases: Cases) -> str:
    return " and ".join(map(str, cases.threads)) + (" thread" if cases.threads == (1,) else " threads")


def _by_checkpoint(cases: Cases) -> dict[Hashable, Side]:
    """One side per cell and backend: its batch sizes and thread counts run the same checkpoint."""
    found: dict[Hashable, Side] = {}
    for side in sorted(cases.sides.values(), key=lambda s: s.name):
        if side.cell is not None:
            found.setdefault((side.cell, side.group), side)
    return found


def _missing(interval: Interval) -> float:
    """How far an interval misses 0; 0 where it holds it."""
    return max(0.0, interval[0], -interval[2])


def _margin(a: Cases, b: Cases, differing: dict[str, tuple[str, str]]) -> tuple[float, int]:
    """(how far an interval must clear 1, number of controls it is from).

    The controls are dense ways against the dense baseline, which should have changed by nothing: 95 of 100 of their
    intervals lie within the margin. Where torch may have changed there is no control.
    """
    least = math.log1p(MARGIN)
    if "versions" in differing:
        return least, 0
    found = []
    for key in set(a.controls) & set(b.controls):
        one, other = a.controls[key], b.controls[key]
        if one.against == other.against and one.over and other.over and one.stable and other.stable:
            found.append(_missing(combined(one.over[one.against], other.over[one.against])))
    return max([least, float(np.percentile(found, 95, method="higher"))] if found else [least]), len(found)


def _pair(a: Side | None, b: Side | None, margin: float, accuracy: bool) -> Pair:
    one = a or b
    assert one is not None
    if a is None or b is None:
        return Pair(one.name, one.group, a, b, "only in B" if a is None else "only in A")
    if accuracy:
        return Pair(one.name, one.group, a, b, "" if a.status == b.status == "ok" else "not measured")
    if not (a.over and b.over and a.status == b.status == "ok"):
        return Pair(one.name, one.group, a, b, "not timed")
    against = next((name for name in (a.against, b.against) if name in a.over and name in b.over), None)
    if against is None:
        return Pair(one.name, one.group, a, b, "other baseline")
    change = combined(a.over[against], b.over[against])
    return Pair(one.name, one.group, a, b, _verdict(a, b, change, margin), change, against)


def _verdict(a: Side, b: Side, change: Interval, margin: float) -> str:
    if not (a.stable and b.stable):
        return "unstable"
    if change[0] > margin:
        return "faster"
    return "slower" if change[2] < -margin else "inconclusive"


def _with_other_recipes(pairs: list[Pair]) -> list[Pair]:
    """A case that is in both runs, but with two recipes of one name, says so."""
    alone = Counter(p.name for p in pairs if p.a is None or p.b is None)
    return [
        replace(p, verdict=f"{p.verdict}, with another recipe")
        if p.verdict.startswith("only") and alone[p.name] > 1
        else p
        for p in pairs
    ]


def _order(accuracy: bool) -> Any:
    """What changed most comes first: statuses, then what is furthest from 1 beyond its interval, then the others."""

    def key(pair: Pair) -> tuple[Any, ...]:
        if pair.a is None or pair.b is None:
            return (3, 0.0, 0.0, pair.verdict, pair.name)
        if pair.a.status != pair.b.status:
            return (0, 0.0, 0.0, "", pair.name)
        if accuracy:
            return (1, -abs(pair.points or 0.0), 0.0, "", pair.name)
        if pair.log_change is None:
            return (2, 0.0, 0.0, "", pair.name)
        rank = 1 if pair.verdict in JUDGED else 2
        return (rank, -_missing(pair.log_change), -abs(pair.log_change[1]), "", pair.name)

    return key


def mean_change(pairs: Sequence[Pair]) -> Interval | None:
    """Mean log change of the judged cases with its 95 % bootstrap interval over cases; None where there is none."""
    return mean_interval([p.log_change[1] for p in pairs if p.log_change and p.verdict in JUDGED])


def mean_points(pairs: Sequence[Pair]) -> Interval | None:
    """Mean change of accuracy in points, one value per cell and backend, with the same interval."""
    found: dict[Hashable, float] = {}
    for pair in sorted(pairs, key=lambda p: p.name):
        if pair.points is not None and pair.a is not None:
            found.setdefault((pair.a.cell, pair.group), pair.points)
    return mean_interval(list(found.values()))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """(low, mean, high); NaN ends for a single value, which says nothing about its spread."""
    if not values:
        return None
    array = np.sort(np.asarray(values))  # the same values give the same interval, whatever their order
    if len(array) == 1:
        return math.nan, float(array[0]), math.nan
    rng = np.random.default_rng(0)
    means = rng.choice(array, (_RESAMPLES, len(array))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(array.mean()), float(high)


def slower_than(result: Result, limit: float) -> list[str]:
    """Why B fails a check of `limit` (0.05: takes 5 % longer); empty where it passes.

    A case or a group's mean counts where its whole interval lies beyond the limit, and so does a case that was ok in A
    and isn't in B, or that B, cut off, has not come to; a comparison in which nothing could be judged passes no check.
    """
    bound = -math.log1p(limit)
    said = [f"{p.name} was ok and is {p.b.status}" for p in result.both
            if p.a and p.b and p.a.status == "ok" and p.b.status != "ok"]  # fmt: skip
    lost = sum(p.b is None and p.a is not None and p.a.status == "ok" for p in result.pairs)
    if lost and not result.b.complete:
        said.append(f"{lost} cases that were ok are missing from {result.b.label}, which was cut off")
    for pair in result.both:
        if pair.verdict == "slower" and pair.log_change and pair.log_change[2] < bound:
            said.append(f"{pair.name} takes {100 * math.expm1(-pair.log_change[1]):.1f} % longer")
    for group, pairs in result.groups().items():
        mean = mean_change(pairs)
        if mean and mean[2] < bound:
            said.append(f"{group} takes {100 * math.expm1(-mean[1]):.1f} % longer in the mean of its cases")
    if not any(p.verdict in JUDGED for p in result.both):
        said.append("no case could be judged")
    return said
