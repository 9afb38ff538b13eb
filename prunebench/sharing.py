"""How many units each set loses: the arithmetic that scopes are made of.

Every function gives one count per set, never fewer than are gone already (masks only shrink) nor more than may go.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prunebench.masks import lowest, pruned_count, warn_of_collapse
from prunebench.units import UnitSet, protected


def together(sets: Sequence[UnitSet], sparsity: float, scores: Sequence[Tensor] | None = None) -> list[int]:
    """All sets' units in one ranking: the lowest go until ⌊N·s + ½⌋ weights are gone; each set keeps its best unit.

    Where units weigh differently, the total is the nearest that whole units allow. scores: ranked by these instead,
    one tensor (units,) per set, which must not reorder a set's units.
    """
    ranked = [s.scores for s in sets] if scores is None else list(scores)
    wanted = pruned_count(sum(s.weights for s in sets), sparsity)
    collapsed: list[int] = []
    while True:
        lost = _lost(sets, ranked, wanted)
        counts = _sizes(lost)
        bare = [i for i, (s, count) in enumerate(zip(sets, counts, strict=True)) if count > s.most]
        found = [i for i in bare if i not in collapsed]
        if not found:
            break
        # With its best out of reach, the next in order takes that one's place and the total is unchanged.
        for i in found:
            ranked[i] = protected(ranked[i])
        collapsed += found
    if scores is None:  # else what was equal there may differ here
        for i, unit_set in enumerate(sets):
            if i not in bare:
                unit_set.found[counts[i]] = lost[i].to(unit_set.scores.device)
    warn_of_collapse([sets[i].names[0] for i in sorted(collapsed)])
    return [min(count, s.most) for s, count in zip(sets, counts, strict=True)]


def _lost(sets: Sequence[UnitSet], scores: Sequence[Tensor], wanted: int) -> Sequence[Tensor]:
    """Bool (units,) for every set: its units among the lowest of all, ties by position."""
    pool = torch.cat(list(scores)).cpu()
    alike = {s.cost if isinstance(s.cost, int) else 0 for s in sets}
    if len(alike) == 1 and 0 not in alike:
        gone = lowest(pool, min(round(wanted / alike.pop()), len(pool)))
    else:
        order = pool.sort(stable=True).indices
        removed = torch.cat([s.costs.cpu() for s in sets])[order].cumsum(0)
        gone = torch.zeros(len(pool), dtype=torch.bool)
        gone[order[: _nearest(removed, wanted, sum(s.gone for s in sets))]] = True
    return gone.split([s.units for s in sets])


def _sizes(lost: Sequence[Tensor]) -> list[int]:
    return [int(part.count_nonzero()) for part in lost]


def _nearest(removed: Tensor, wanted: int, least: int) -> int:
    # removed[k] weights are gone after k + 1 units: the number of units whose total is nearest to the wanted one.
    totals = torch.cat([torch.zeros(1, dtype=removed.dtype), removed])
    return least + int((totals[least:] - wanted).abs().argmin())


def alone(sets: Sequence[UnitSet], sparsities: Sequence[float]) -> list[int]:
    """Every set reaches its own sparsity by itself, as nearly as whole units allow; it keeps its best unit."""
    counts = [_alone(s, sparsity) for s, sparsity in zip(sets, sparsities, strict=True)]
    warn_of_collapse([s.names[0] for s, c in zip(sets, counts, strict=True) if c > s.most and not s.staying])
    return [min(max(c, s.gone), s.most) for s, c in zip(sets, counts, strict=True)]


def _alone(unit_set: UnitSet, sparsity: float) -> int:
    if isinstance(unit_set.cost, int):
        return math.floor(unit_set.weights / unit_set.cost * sparsity + 0.5)
    return _nearest(unit_set.ladder[1:], pruned_count(unit_set.weights, sparsity), unit_set.gone)


def apportion(sets: Sequence[UnitSet], targets: Sequence[float], total: int) -> list[int]:
    """Counts that remove `total` weights, each set's as near its target as that allows (largest remainder).

    targets: weights that each set should lose, summing to `total`. Each is rounded down to whole units; then the
    units that are missing go one by one to the sets that lack most, the earlier of equals first. Where units weigh
    differently, the total is the nearest that such steps reach.
    """
    removed = [_removed(s) for s in sets]
    counts = [
        min(max(bisect_right(range(s.units + 1), target, key=r) - 1, s.gone), s.most)
        for s, r, target in zip(sets, removed, targets, strict=True)
    ]
    missing = total - sum(r(c) for r, c in zip(removed, counts, strict=True))
    while missing:
        step = 1 if missing > 0 else -1
        best, most = None, -math.inf
        for i, (s, r) in enumerate(zip(sets, removed, strict=True)):
            if (counts[i] >= s.most) if step > 0 else (counts[i] <= s.gone):
                continue
            unit = abs(r(counts[i] + step) - r(counts[i]))
            lack = (targets[i] - r(counts[i])) * step / unit
            if abs(abs(missing) - unit) < abs(missing) and lack > most:
                best, most = i, lack
        if best is None:
            break
        before = removed[best](counts[best])
        counts[best] += step
        missing -= removed[best](counts[best]) - before
    return counts


def _removed(unit_set: UnitSet) -> Callable[[int], int]:
    # Weights that are gone with a set's k lowest units.
    if isinstance(unit_set.cost, int):
        cost = unit_set.cost
        return lambda k: k * cost
    ladder = unit_set.ladder.tolist()
    return lambda k: int(ladder[k])


def water_fill(rates: Sequence[float], low: Sequence[float], high: Sequence[float], total: float) -> list[float]:
    """x_i = ε·rate_i, held within [low_i, high_i], with the one ε for which they sum to `total`.

    A total out of reach gives all the low or all the high bounds. Rates are above 0.
    """

    def filled(level: float) -> list[float]:
        return [min(max(level * r, lo), hi) for r, lo, hi in zip(rates, low, high, strict=True)]

    if total <= sum(low) or total >= sum(high):
        return list(map(float, low if total <= sum(low) else high))
    # The sum is piecewise linear in ε, with its corners where a bound is met: exact within the right piece.
    corners = sorted({bound / r for bounds in (low, high) for bound, r in zip(bounds, rates, strict=True)})
    right = bisect_left(corners, total, key=lambda level: sum(filled(level)))
    left_sum, right_sum = (sum(filled(corners[i])) for i in (right - 1, right))
    part = (total - left_sum) / (right_sum - left_sum)
    return filled(corners[right - 1] + part * (corners[right] - corners[right - 1]))
