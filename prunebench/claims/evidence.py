"""The measured cases that claims are judged by; where a case was measured again, the latest counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

from prunebench.cell import Cell, per_mille
from prunebench.claims.registered import OF_CELL, Claim, Scope
from prunebench.facts import case_of, repetition_of
from prunebench.runs import Run
from prunebench.spec import Spec
from prunebench.statistics import Estimate, quotient, reaching_one

# A method's accuracy is that of its checkpoint: through torch where that was measured.
_STEADY = ("faster", "slower", "inconclusive")  # a timing that was not judged is not known to be
_PREFERRED = ("dense", "masked", "csr", "compact", "scipy_csr")


@dataclass(frozen=True, eq=False)
class Sample:
    """One measured case and the run it stands in."""

    run: str
    machine: str
    facts: dict[str, Any]

    @cached_property
    def id(self) -> str:
        """`mnist: lenet5-mnist-l1-weight-global-agp-s900-seed0-csr-b64`, with `-t2` where it isn't one thread."""
        if self.of_the_grid:
            case = case_of(self.facts).id
        else:
            about = (self.facts.get("layer") or {}).get("id") or Spec.parse(self.model).slug
            case = f"{about}-s{per_mille(self.sparsity)}-{self.facts['backend']}-b{self.facts['batch_size']}"
        return f"{self.run}: {case}" + (f"-t{self.facts['threads']}" if self.facts["threads"] > 1 else "")

    @cached_property
    def cell(self) -> Cell:
        """The grid's cell; a question beside the grid has none."""
        return Cell.from_dict(self.facts["cell"])

    @property
    def of_the_grid(self) -> bool:
        return "question" not in self.facts

    @property
    def repetition(self) -> Hashable:
        """What it is a repetition of: the cell without its seed, or the network or layer at its sparsity."""
        return repetition_of(self.cell) if self.of_the_grid else (self.method, self.sparsity)

    @property
    def method(self) -> Hashable:
        """The same at whatever sparsity."""
        if self.of_the_grid:
            return replace(repetition_of(self.cell), sparsity=0.0)
        return (self.facts["question"], self.model)

    @property
    def dataset(self) -> str:
        return self.facts["cell"].get("dataset") or ""

    @property
    def model(self) -> str:
        return str(self.facts["cell"]["model"])

    @property
    def sparsity(self) -> float:
        return float(self.facts["cell"]["sparsity"])

    @property
    def seed(self) -> int:
        return int(self.facts["cell"].get("seed", 0))

    @property
    def machine_and_threads(self) -> tuple[str, int]:
        return self.machine, int(self.facts["threads"])

    @property
    def timed(self) -> bool:
        return all(self.facts[name] for name in ("speedup", "speedup_low", "speedup_high"))

    @property
    def stable(self) -> bool:
        return self.timed and self.facts["verdict"] in _STEADY

    @property
    def speedup(self) -> Estimate:
        """Its speed-up over its baseline; the interval of an inconclusive one reaches to 1, and any to its estimate."""
        f = self.facts
        ends = (f["speedup"], f["speedup_low"], f["speedup_high"])
        found = Estimate(f["speedup"], min(ends), max(ends), 1)
        return reaching_one(found) if f["verdict"] == "inconclusive" else found


@dataclass(frozen=True)
class Evidence:
    """Every case of the runs that was measured, oldest first: the grid's, and those of the questions beside it."""

    grid: tuple[Sample, ...]
    answers: tuple[Sample, ...]

    def of(self, claim: Claim) -> list[Sample]:
        """Those that a claim is about."""
        if claim.source != "grid":
            return [s for s in self.answers if s.facts["question"] == claim.source and fitting(s, claim.scope)]
        alike = (own for own in self._by_method.values() if claim.scope.has_cell(own[0][1].facts["cell"]))
        found = [(n, s) for own in alike for n, s in own if claim.scope.has_case(s.facts)]
        return [s for _, s in sorted(found, key=itemgetter(0))]

    @cached_property
    def _by_method(self) -> dict[Hashable, list[tuple[int, Sample]]]:
        """The grid's samples with their places, by all that a scope asks of a cell."""
        found: dict[Hashable, list[tuple[int, Sample]]] = {}
        for n, one in enumerate(self.grid):
            cell = one.facts["cell"]
            key = (*(cell[name] for name in OF_CELL), (cell["recipe"] or {}).get("name"), cell["sparsity"])
            found.setdefault(key, []).append((n, one))
        return found

    @cached_property
    def _by_case(self) -> dict[Hashable, list[Sample]]:
        found: dict[Hashable, list[Sample]] = {}
        for one in self.grid:
            found.setdefault((one.cell, one.facts["batch_size"], one.facts["backend"]), []).append(one)
        return found

    @cached_property
    def _by_curve(self) -> dict[Hashable, list[Sample]]:
        found: dict[Hashable, list[Sample]] = {}
        for one in self.grid:
            if one.facts["accuracy"] is not None:
                found.setdefault(_curve_key(one, one.cell, one.facts["backend"]), []).append(one)
        return found

    def curve(self, cell: Cell, backend: str, like: Sample) -> list[Sample]:
        """A cell at every sparsity through a backend, on a sample's machine, threads, batch size and baseline.

        Those without an accuracy are left out.
        """
        return self._by_curve.get(_curve_key(like, cell, backend), [])

    def partner(self, sample: Sample, backend: str, same_machine: bool) -> Sample | None:
        """The same cell and batch size (on the same machine and threads) through another backend, measured last."""
        same = self._by_case.get((sample.cell, sample.facts["batch_size"], backend), [])
        here = [s for s in same if s.machine_and_threads == sample.machine_and_threads or not same_machine]
        return here[-1] if here else None

    def unpruned(self, sample: Sample, backend: str) -> Sample | None:
        """Any case of the same network through a backend that keeps every weight, zero or not, measured last."""
        return self._by_network.get((sample.dataset, sample.model, backend))

    @cached_property
    def _by_network(self) -> dict[Hashable, Sample]:
        return {(one.dataset, one.model, one.facts["backend"]): one for one in self.grid}


def _curve_key(place: Sample, cell: Cell, backend: str) -> Hashable:
    here = (*place.machine_and_threads, place.facts["batch_size"], place.facts["baseline"])
    return (replace(cell, sparsity=0.0), backend, *here)


def gather(runs: Sequence[Run]) -> Evidence:
    """The evidence in saved runs; a case that failed when it was measured last is none, as in the tables."""
    grid: dict[Hashable, Sample] = {}
    answers: dict[Hashable, Sample] = {}
    for run in sorted(runs, key=lambda r: (r.datetime, r.name)):
        for facts in (*run.facts, *run.answers):
            one = Sample(run.name, str(run.machine.get("id", "unknown")), facts)
            place = (*one.machine_and_threads, facts["backend"], facts["batch_size"])
            found = grid if one.of_the_grid else answers
            key = (*place, one.cell if one.of_the_grid else (one.repetition, str(facts.get("layer"))))
            found.pop(key, None)  # re-inserted at the end: the order is that of measuring
            if facts["status"] == "ok":
                found[key] = one
    return Evidence(tuple(grid.values()), tuple(answers.values()))


def fitting(sample: Sample, scope: Scope) -> bool:
    return scope.has_case(sample.facts) and scope.has_cell(sample.facts["cell"])


def checkpoints(samples: Iterable[Sample], backends: Sequence[str] = ()) -> dict[Cell, dict[int, Sample]]:
    """{cell without its seed: {seed: its sample through the preferred backend, measured last}}."""
    order = tuple(backends) or _PREFERRED
    found: dict[Cell, dict[int, Sample]] = {}
    for one in samples:
        if backends and one.facts["backend"] not in backends:
            continue
        own = found.setdefault(repetition_of(one.cell), {})
        if one.seed not in own or _rank(one, order) <= _rank(own[one.seed], order):
            own[one.seed] = one
    return found


def _rank(sample: Sample, order: Sequence[str]) -> int:
    backend = sample.facts["backend"]
    return order.index(backend) if backend in order else len(order)


def against(sample: Sample, other: Sample) -> Estimate | None:
    """The speed-up over another backend, through the baseline that both were timed with; None where that differs."""
    if sample.facts["baseline"] != other.facts["baseline"]:
        return None
    return quotient(sample.speedup, other.speedup)
