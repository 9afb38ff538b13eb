"""A verdict with what it rests on, in words; and the command that would measure what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from prunebench.cell import Cell
from prunebench.claims.evidence import Sample
from prunebench.claims.registered import Claim, Scope
from prunebench.statistics import UNDECIDED, UNSTABLE, Estimate


@dataclass(frozen=True)
class Verdict:
    """What became of a claim in one place: a network, a sparsity, a backend, on one machine where time is claimed.

    verdict: holds, refuted, undecided or unstable. n: repetitions behind the estimate. evidence: `run: case id` of
    every case used. command: what would measure the missing evidence, empty where none is missing.
    """

    id: str
    statement: str
    article: str
    rule: str
    scope: str
    verdict: str
    estimate_text: str
    interval_text: str
    n: int
    machine: str
    evidence: tuple[str, ...]
    reason: str
    command: str


def verdict(
    claim: Claim,
    where: str,
    outcome: str,
    samples: Iterable[Sample] = (),
    *,
    estimate: str = "–",
    interval: str = "–",
    n: int = 0,
    reason: str = "",
    command: str = "",
) -> Verdict:
    """A verdict with the machines and cases of its samples."""
    used = list(samples)
    return Verdict(
        claim.id, claim.statement, claim.article, claim.rule, where, outcome, estimate, interval, n,
        ", ".join(sorted({s.machine for s in used})), tuple(sorted({s.id for s in used})), reason, command,
    )  # fmt: skip


def points(value: float) -> str:
    """A difference of accuracies in points, signed."""
    return "–" if math.isinf(value) else f"{100 * value:+.2f}"


def point_texts(estimate: Estimate, confidence: float) -> dict[str, Any]:
    """The texts of a difference of accuracies."""
    ends = f"[{points(estimate.low)}, {points(estimate.high)}] ({100 * confidence:g} %)"
    return {
        "estimate": f"{points(estimate.value)} points",
        "interval": "–" if estimate.n < 2 else ends,
        "n": estimate.n,
    }


def ratio_texts(ratio: Estimate, slower: bool = False) -> dict[str, Any]:
    """The texts of a ratio with an interval."""
    kind = "× the time" if slower else "×"
    return {
        "estimate": f"{ratio.value:.2f}{kind}",
        "interval": f"[{ratio.low:.2f}, {ratio.high:.2f}]",
        "n": ratio.n,
    }


def too_few(claim: Claim, n: int) -> str:
    return f"{n} of at least {claim.scope.seeds} seeds measured"


def where_of(cell: Cell, *more: str) -> str:
    """`mnist lenet5, l1 weight global agp, 90 %, csr, batch 64`: what a verdict is about."""
    method = " ".join(part for part in (cell.criterion, cell.granularity, cell.scope, cell.schedule) if part)
    return ", ".join([f"{cell.dataset} {cell.model}", method, percent(cell.sparsity), *more])


def where_measured(sample: Sample, *more: str) -> str:
    """The same for any measured case; a question beside the grid has random weights and no method."""
    if sample.of_the_grid:
        return where_of(sample.cell, *more)
    return ", ".join([sample.model, "random weights", percent(sample.sparsity), *more])


def place_of(sample: Sample) -> tuple[str, ...]:
    """Backend, batch size and threads, for where_of."""
    threads = sample.facts["threads"]
    return (
        sample.facts["backend"],
        f"batch {sample.facts['batch_size']}",
        f"{threads} thread{'s' if threads > 1 else ''}",
    )


def percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


def command_for(claim: Claim, **chosen: Any) -> str:
    """The pytest command that measures a claim's scope, or the part of it chosen by replacing lists of the scope."""
    changes: dict[str, Any] = {name: (value,) for name, value in chosen.items()}
    scope = replace(claim.scope, **changes)
    if claim.source == "claims":  # its cases are few, and measured together
        return "pytest benchmarks/test_claims.py --benchmark-save=claims"
    if claim.source != "grid":
        aside: dict[str, Sequence[Any]] = {
            "models": scope.models, "sparsities": scope.sparsities, "batch-sizes": scope.batch_sizes,
            "threads": scope.threads,
        }  # fmt: skip
        return f"pytest benchmarks/test_{claim.source}.py{_options(aside)} --benchmark-save={claim.source}"
    backends = scope.backends or ("dense",)
    if claim.against or claim.quantity == "resident":
        backends = tuple(dict.fromkeys(["dense", *backends]))
    grid: dict[str, Sequence[Any]] = {
        "datasets": scope.datasets, "models": scope.models, "criteria": scope.criteria,
        "granularities": scope.granularities, "scopes": scope.scopes, "schedules": scope.schedules,
        "sparsities": scope.sparsities, "backends": backends, "batch-sizes": scope.batch_sizes or (64,),
        "seeds": range(scope.seeds), "recipe": scope.recipes[:1], "threads": scope.threads[:1],
    }  # fmt: skip
    return f"pytest benchmarks{_options(grid)} --benchmark-save=claims"


def _options(options: dict[str, Sequence[Any]]) -> str:
    return "".join(f" --{name} {','.join(map(str, values))}" for name, values in options.items() if len(values))


Place = tuple[Any, ...]  # a sparsity, and a batch size and a thread count behind it, as far as they are told


def place_measured(sample: Sample) -> Place:
    """Sparsity, batch size and threads of a timing, for `missing`."""
    return (sample.sparsity, sample.facts["batch_size"], sample.facts["threads"])


def missing(claim: Claim, found: Iterable[tuple[str, str, Place]]) -> list[Verdict]:
    """An undecided verdict per dataset and model of the scope for what was not found: (dataset, model, place) each."""
    scope = claim.scope
    have = {(dataset, model, _asked(scope, place)) for dataset, model, place in found}
    every = product(scope.sparsities, scope.batch_sizes or (0,), scope.threads or (0,))
    places = [_asked(scope, place) for place in every]
    verdicts = []
    for dataset, model in product(scope.datasets or ("",), scope.models):
        left = [place for place in places if (dataset, model, place) not in have]
        if left:
            command = command_for(claim, models=model, **({"datasets": dataset} if dataset else {}))
            where = f"{dataset} {model}".strip()
            reason = (
                "not measured"
                if len(left) == len(places)
                else "not measured: " + "; ".join(_text(scope, place) for place in left)
            )
            verdicts.append(verdict(claim, where, UNDECIDED, reason=reason, command=command))
    return verdicts


def _asked(scope: Scope, place: Place) -> Place:
    """A place without what the scope doesn't ask for."""
    sparsity, batch, threads = (*place, 0, 0)[:3]
    return (round(sparsity, 9), batch if scope.batch_sizes else 0, threads if scope.threads else 0)


def _text(scope: Scope, place: Place) -> str:
    sparsity, batch, threads = place
    words = [f"at batch {batch}"] if batch else []
    words += [f"on {threads} thread{'s' if threads > 1 else ''}"] if len(scope.threads) > 1 else []
    return " ".join([percent(sparsity), *words])


def unstable_or_few(claim: Claim, stable: int, unstable: int) -> tuple[str, str]:
    """(verdict, reason) where fewer than the scope's seeds are left to decide."""
    if stable + unstable >= claim.scope.seeds:
        return UNSTABLE, f"{unstable} of {stable + unstable} timings unstable"
    return UNDECIDED, too_few(claim, stable) + (f", {unstable} more unstable" if unstable else "")
