"""Rules about accuracies, paired over seeds: equal to the dense parent, one setting above another, equal latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from prunebench.cell import Cell
from prunebench.claims.evidence import Evidence, Sample, checkpoints
from prunebench.claims.registered import Claim
from prunebench.claims.verdicts import (
    Place,
    Verdict,
    command_for,
    missing,
    place_of,
    point_texts,
    too_few,
    unstable_or_few,
    verdict,
    where_of,
)
from prunebench.facts import repetition_of
from prunebench.statistics import UNDECIDED, equivalence, interpolate, mean_interval, ordering

Difference = tuple[float, tuple[Sample, ...]]  # of one seed, with the samples that it comes from


def same_as_dense(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `equivalence`: per cell, accuracy minus the dense parent's of the same seed lies within ±margin."""
    verdicts: list[Verdict] = []
    found = []
    for cell, seeds in checkpoints(_with_accuracy(claim, evidence, "accuracy", "accuracy_dense")).items():
        differences = [s.facts["accuracy"] - s.facts["accuracy_dense"] for _, s in sorted(seeds.items())]
        outcome, estimate = equivalence(differences, claim.high, claim.alpha)
        few = len(differences) < claim.scope.seeds
        about: dict[str, Any] = point_texts(estimate, 1 - 2 * claim.alpha)
        if few:
            about |= {"reason": too_few(claim, len(differences)), "command": command_for(claim, models=cell.model)}
        else:
            about["reason"] = f"two one-sided tests, ±{100 * claim.high:g} points"
        about["reason"] += _collapsed(seeds.values())
        verdicts.append(verdict(claim, where_of(cell), UNDECIDED if few else outcome, seeds.values(), **about))
        found.append((cell.dataset, cell.model, (cell.sparsity,)))
    return [*verdicts, *missing(claim, found)]


def _with_accuracy(claim: Claim, evidence: Evidence, *needed: str) -> list[Sample]:
    return [s for s in evidence.of(claim) if all(s.facts[name] is not None for name in needed)]


def ordered(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `ordering`: per sparsity, accuracy of `first` minus that of `second` on the same seed is above the bound."""
    found = checkpoints(_with_accuracy(claim, evidence, "accuracy"))
    families: dict[Any, dict[float, list[Difference]]] = {}
    for cell, seeds in found.items():
        if getattr(cell, claim.axis) == claim.first:
            other = found.get(_with(cell, claim, claim.second), {})
            shared = sorted(set(seeds) & set(other))
            differences: list[Difference] = [
                (seeds[n].facts["accuracy"] - other[n].facts["accuracy"], (seeds[n], other[n])) for n in shared
            ]
            if differences:
                families.setdefault(_family(cell), {})[cell.sparsity] = differences
    verdicts, measured = _judged(claim, families)
    return [*verdicts, *missing(claim, measured)]


def _family(cell: Cell) -> Cell:
    # One family of hypotheses: all that differs within it is the sparsity.
    return replace(repetition_of(cell), sparsity=0.0)


def _collapsed(samples: Iterable[Sample]) -> str:
    """How many of the networks had a layer that would have lost every weight: a reader must know whom was beaten."""
    own = {(s.cell, s.seed): s.facts.get("collapse") for s in samples}
    lost = sum(bool(one) for one in own.values())
    return f"; layer collapse in {lost} of {len(own)} networks" if lost else ""


Counts = Mapping[Any, int]  # {(key of a family, sparsity): seeds left out}
_NONE: Counts = MappingProxyType({})


def _judged(
    claim: Claim, families: dict[Any, dict[float, list[Difference]]], unstable: Counts = _NONE, beyond: Counts = _NONE
) -> tuple[list[Verdict], list[tuple[str, str, Place]]]:
    """(verdicts of every sparsity measured, corrected over all of the scope; what they are about, for `missing`).

    families: {cell, or (cell, place in words, …): differences by sparsity}.
    """
    verdicts, found = [], []
    for key, by_sparsity in families.items():
        cell, *place = (key,) if isinstance(key, Cell) else key[:2]
        unmeasured = max(0, len(claim.scope.sparsities) - len(by_sparsity))
        order = sorted(by_sparsity)
        lists = [[d for d, _ in by_sparsity[s]] for s in order] + [[]] * unmeasured
        outcomes = ordering(lists, claim.low, claim.alpha, claim.scope.seeds)
        for sparsity, values, (outcome, p) in zip(order, lists, outcomes, strict=False):
            samples = [s for _, used in by_sparsity[sparsity] for s in used]
            about: dict[str, Any] = point_texts(mean_interval(values, 1 - 2 * claim.alpha), 1 - 2 * claim.alpha)
            if len(values) < claim.scope.seeds:
                outcome, reason = unstable_or_few(claim, len(values), unstable.get((key, sparsity), 0))
                about |= {"reason": reason, "command": command_for(claim, models=cell.model)}
            else:
                about["reason"] = f"p = {p:.2g} after Holm over {len(lists)}, bound {100 * claim.low:+g} points"
            left = beyond.get((key, sparsity), 0)
            about["reason"] += f"; {left} more beyond the latencies measured" if left else ""
            about["reason"] += _collapsed(samples)
            verdicts.append(verdict(claim, _where(claim, cell, sparsity, *place), outcome, samples, **about))
            found.append((cell.dataset, cell.model, (sparsity,)))
    return verdicts, found


def _where(claim: Claim, cell: Cell, sparsity: float, *place: str) -> str:
    return where_of(replace(_with(cell, claim, f"{claim.first} − {claim.second}"), sparsity=sparsity), *place)


def _with(cell: Cell, claim: Claim, setting: str) -> Cell:
    changed: dict[str, Any] = {claim.axis: setting}
    return replace(cell, **changed)


def at_equal_latency(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Rule `matched`: as `ordering`, the second interpolated on its own curve at the first's measured latency.

    Latency is relative to the baseline in the same interleaved blocks, so that a slow moment counts for both.
    """
    families: dict[Any, dict[float, list[Difference]]] = {}
    unstable: dict[Any, list[Sample]] = {}
    beyond: dict[Any, list[Sample]] = {}
    for first in _with_accuracy(claim, evidence, "accuracy"):
        if getattr(first.cell, claim.axis) != claim.first or first.facts["backend"] != claim.first_backend:
            continue
        key = (_family(first.cell), ", ".join(place_of(first)[1:]), first.machine)
        timed = _curve(claim, evidence, first)
        if not any(getattr(s.cell, claim.axis) == claim.second for s in timed):
            continue  # of this seed there is nothing to hold it against
        curve = [s for s in timed if s.stable]
        accuracy = interpolate([(_latency(s), s.facts["accuracy"]) for s in curve], _latency(first))
        if not first.stable or not curve:
            unstable.setdefault((key, first.cell.sparsity), []).append(first)
        elif accuracy is None:
            beyond.setdefault((key, first.cell.sparsity), []).append(first)
        else:
            entry = (first.facts["accuracy"] - accuracy, (first, *curve))
            families.setdefault(key, {}).setdefault(first.cell.sparsity, []).append(entry)
    verdicts, found = _judged(claim, families, _counted(unstable), _counted(beyond))
    for key, sparsity in dict.fromkeys([*beyond, *unstable]):
        cell, place = key[:2]
        if sparsity not in families.get(key, {}):
            firsts, lost = beyond.get((key, sparsity), []), unstable.get((key, sparsity), [])
            outcome, reason = unstable_or_few(claim, 0, len(lost))
            if firsts:
                outcome = UNDECIDED
                reason = (
                    f"latency not reached by {claim.second} through {claim.second_backend}: nothing is extrapolated"
                )
            where = _where(claim, cell, sparsity, place)
            verdicts.append(verdict(claim, where, outcome, firsts or lost, n=len(firsts), reason=reason))
            found.append((cell.dataset, cell.model, (sparsity,)))
    return [*verdicts, *missing(replace(claim, scope=replace(claim.scope, batch_sizes=(), threads=())), found)]


def _counted(samples: Mapping[Any, list[Sample]]) -> dict[Any, int]:
    return {place: len(own) for place, own in samples.items()}


def _curve(claim: Claim, evidence: Evidence, first: Sample) -> list[Sample]:
    """The second setting through its own backend, of the first's seed, place and baseline; and the unpruned control."""
    second = claim.second_backend
    return [
        *evidence.curve(_with(first.cell, claim, claim.second), second, first),
        *evidence.curve(first.cell.control, second, first),
    ]


def _latency(sample: Sample) -> float:
    return 1 / sample.facts["speedup"]
