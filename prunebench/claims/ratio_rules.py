"""Rules about ratios: exact counts, times with an interval per machine and thread count, break-even sparsities."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from prunebench.claims.evidence import Evidence, Sample, against, checkpoints
from prunebench.claims.registered import Claim
from prunebench.claims.verdicts import (
    Verdict,
    command_for,
    missing,
    percent,
    place_measured,
    place_of,
    ratio_texts,
    unstable_or_few,
    verdict,
    where_measured,
)
from prunebench.statistics import (
    HOLDS,
    REFUTED,
    UNDECIDED,
    UNSTABLE,
    Estimate,
    geometric,
    inverse,
    within,
)
from prunebench.tables.layers import breakeven


def counted(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `count`: exact ratios of dense to pruned; the least favourable seed decides (`reached`: the most)."""
    groups: dict[Hashable, list[Sample]] = {}
    for one in _counts(claim, evidence):
        key = (one.dataset, one.model) if claim.direction == "reached" else one.repetition
        groups.setdefault(key, []).append(one)
    verdicts: list[Verdict] = []
    found = []
    for samples in groups.values():
        ratios = [(_ratio(claim, evidence, s), s) for s in samples]
        known = [(ratio, s) for ratio, s in ratios if ratio is not None]
        if known:
            verdicts.append(_counted(claim, known))
            found += [(s.dataset, s.model, (s.sparsity,)) for _, s in known]
    # Whether a bound is reached is one question a network: its verdict tells itself which sparsities are missing.
    everywhere = product(found, claim.scope.sparsities) if claim.direction == "reached" else ()
    claim = replace(claim, scope=replace(claim.scope, batch_sizes=(), threads=()))
    return [*verdicts, *missing(claim, [*found, *((d, m, (s,)) for (d, m, _), s in everywhere)])]


def _counts(claim: Claim, evidence: Evidence) -> list[Sample]:
    """The samples to count: of a cell one for every seed, as its counts are the same through every backend."""
    samples = evidence.of(claim)
    if claim.source != "grid":
        return samples
    cells = checkpoints(samples, claim.scope.backends).values()
    return [one for seeds in cells for _, one in sorted(seeds.items())]


def _counted(claim: Claim, known: Sequence[tuple[float, Sample]]) -> Verdict:
    values = [ratio for ratio, _ in known]
    n = len({(s.repetition, s.seed) for _, s in known})  # a batch size more is no repetition
    decisive = min(values) if claim.direction == "at_least" else max(values)
    samples = [s for _, s in known]
    one = samples[values.index(decisive)]
    fits = claim.low <= decisive <= claim.high
    outcome = HOLDS if fits else REFUTED
    reason = "exact; the least favourable seed decides"
    if claim.direction == "reached":
        measured = len({s.sparsity for s in samples})
        outcome = HOLDS if fits else REFUTED if measured == len(claim.scope.sparsities) else UNDECIDED
        of = f"{measured} of the scope's {len(claim.scope.sparsities)} sparsities measured"
        reason = f"exact; the most favourable, {percent(one.sparsity)}; {of}"
    elif n < claim.scope.seeds:
        outcome, reason = UNDECIDED, f"{n} of at least {claim.scope.seeds} seeds measured"
    return verdict(
        claim,
        where_measured(one, *(f"dense over {backend}" for backend in claim.scope.backends)),
        outcome,
        samples,
        estimate=f"{decisive:.2f}×",
        interval=f"exact, {min(values):.2f} to {max(values):.2f}",
        n=n,
        reason=reason,
        command=command_for(claim, models=one.model) if outcome == UNDECIDED else "",
    )


def _ratio(claim: Claim, evidence: Evidence, sample: Sample) -> float | None:
    """Dense over pruned; None where a fact that it needs is missing or can't be."""
    f = sample.facts
    if not sample.of_the_grid:
        return _over(f.get("dense_resident_bytes"), f["resident_bytes"])
    needed = ("parameters", "prunable", "nonzeros", "disk_bytes", "dense_disk_bytes", "resident_bytes")
    if any(f[name] is None for name in needed):
        return None
    left = f["parameters"] - f["prunable"] + f["nonzeros"]
    if claim.quantity == "parameters":
        return _over(f["parameters"], left)
    if claim.quantity == "file_fp32":
        return _over(f["dense_disk_bytes"], f["disk_bytes"])
    if claim.quantity == "file_fp16":
        # Layers that are stored dense hold zeros too, so the pruned file is at most two bytes per such zero smaller.
        return _over(f["dense_disk_bytes"] - 2 * f["parameters"], f["disk_bytes"] - 2 * left)
    dense = evidence.partner(sample, "dense", same_machine=False) or evidence.unpruned(sample, "dense")
    return None if dense is None else _over(dense.facts["resident_bytes"], f["resident_bytes"])


def _over(dense: float | None, pruned: float | None) -> float | None:
    return None if dense is None or pruned is None or dense <= 0 or pruned <= 0 else float(dense / pruned)


def timed(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `time`: a speed-up or slow-down with its interval, per cell, backend, batch size, machine and threads."""
    verdicts: list[Verdict] = []
    found = []
    for samples in _repetitions(evidence.of(claim)).values():
        first = samples[0]
        ratios, used, unstable = _stable_ratios(claim, evidence, samples)
        over = " and ".join(sorted({str(s.facts["baseline"]) for s in used or samples}))
        where = where_measured(first, *place_of(first), f"against {claim.against or over}")
        found.append((first.dataset, first.model, place_measured(first)))
        texts: dict[str, Any] = {}
        estimate = geometric(ratios) if ratios else None
        if estimate is not None:
            estimate = inverse(estimate) if claim.quantity == "slowdown" else estimate
            texts = ratio_texts(estimate, claim.quantity == "slowdown")
        if estimate is None or len(ratios) < claim.scope.seeds:
            outcome, reason = unstable_or_few(claim, len(ratios), unstable)
            command = command_for(claim, models=first.model)
            verdicts.append(verdict(claim, where, outcome, samples, **texts, reason=reason, command=command))
        else:
            outcome = within(estimate, claim.low, claim.high)
            reason = _side(claim, estimate, outcome) + (f"; {unstable} unstable left out" if unstable else "")
            verdicts.append(verdict(claim, where, outcome, used, **texts, reason=reason))
    return [*verdicts, *missing(claim, found)]


def _repetitions(samples: Sequence[Sample]) -> dict[Hashable, list[Sample]]:
    groups: dict[Hashable, list[Sample]] = {}
    for one in samples:
        key = (one.repetition, one.facts["backend"], one.facts["batch_size"], *one.machine_and_threads)
        groups.setdefault(key, []).append(one)
    return {key: sorted(own, key=lambda s: s.seed) for key, own in groups.items()}


def _stable_ratios(
    claim: Claim, evidence: Evidence, samples: Sequence[Sample]
) -> tuple[list[Estimate], list[Sample], int]:
    """(ratios of the stable samples, the samples used, how many were unstable)."""
    ratios, used, unstable = [], [], 0
    for one in samples:
        other = evidence.partner(one, claim.against, same_machine=True) if claim.against else None
        if claim.against and other is None:
            continue
        if not one.stable or (other is not None and not other.stable):
            unstable += 1
            continue
        ratio = one.speedup if other is None else against(one, other)
        if ratio is not None:
            ratios.append(ratio)
            used += [one] if other is None else [one, other]
    return ratios, used, unstable


def _side(claim: Claim, estimate: Estimate, outcome: str) -> str:
    if outcome == UNDECIDED:
        return "the interval lies across the bound"
    if outcome == REFUTED:
        return f"above {claim.high:g}" if estimate.low > claim.high else f"below {claim.low:g}"
    ends = [f"at least {claim.low:g}"] if claim.low > 0 else []
    return " and ".join([*ends, f"at most {claim.high:g}"] if claim.high < float("inf") else ends)


def paying(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `breakeven`: at no sparsity of the scope is the backend faster than dense, per machine and threads."""
    curves: dict[Hashable, dict[float, list[Sample]]] = {}
    for samples in _repetitions(evidence.of(claim)).values():
        one = samples[0]
        key = (one.method, one.facts["backend"], one.facts["batch_size"], *one.machine_and_threads)
        curves.setdefault(key, {})[one.sparsity] = samples
    verdicts: list[Verdict] = []
    found = []
    for by_sparsity in curves.values():
        outcomes: list[str] = []
        points: list[tuple[float, float]] = []
        used: list[Sample] = []
        for sparsity, samples in sorted(by_sparsity.items()):
            ratios, own, _ = _stable_ratios(claim, evidence, samples)
            used += own
            found.append((samples[0].dataset, samples[0].model, place_measured(samples[0])))
            if len(ratios) < claim.scope.seeds:
                outcomes.append(UNSTABLE)
                continue
            estimate = geometric(ratios)
            if any(s.facts["verdict"] == "inconclusive" for s in own):
                outcomes.append(UNDECIDED)
                continue
            points.append((sparsity, estimate.value))
            outcomes.append(within(estimate, claim.low, claim.high))
        verdicts.append(_paying(claim, samples[0], outcomes, points, used))
    return [*verdicts, *missing(claim, found)]


def _paying(
    claim: Claim, one: Sample, outcomes: Sequence[str], points: Sequence[tuple[float, float]], used: Sequence[Sample]
) -> Verdict:
    whole = len(outcomes) == len(claim.scope.sparsities)
    if REFUTED in outcomes:
        outcome, reason = REFUTED, "faster than dense at a sparsity of the scope"
    elif UNSTABLE in outcomes:
        outcome, reason = UNSTABLE, "timings unstable"
    elif whole and set(outcomes) == {HOLDS}:
        outcome, reason = HOLDS, "slower than dense at every sparsity of the scope"
    else:
        outcome = UNDECIDED
        part = f"{len(outcomes)} of {len(claim.scope.sparsities)} sparsities"
        reason = "an interval lies across 1" if whole else part
    measured = "at " + ", ".join(percent(s) for s, _ in points) if points else "–"
    where = where_measured(one, *place_of(one)).replace(f", {percent(one.sparsity)},", ",", 1)
    estimate = f"break-even: {breakeven(points, in_time=claim.source == 'grid')}" if points else "–"
    return verdict(
        claim, where, outcome, used, estimate=estimate,
        interval=measured, n=len(points), reason=reason,
        command="" if whole else command_for(claim, models=one.model),
    )  # fmt: skip
