"""What one case measured: schema 1 of `benchmark.extra_info`, complete by itself, missing = null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunebench import saved_values
from prunebench.cell import Case, Cell
from prunebench.errors import UsageError
from prunebench.untrusted import short_line

SCHEMA = 1
STATUSES = ("ok", "diverged", "oom", "timeout", "failed")

# Every fact with its unit; a saved run is read by these names. Order is the order in the JSON.
FIELDS = {
    "accuracy": "fraction of the test split classified right, through this backend",
    "accuracy_dense": "the same of the unpruned control, through torch",
    "relative_error": "largest difference from a float64 reference over its largest value",
    "nonzeros": "prunable weights that are not zero",
    "prunable": "conv and linear weights, attention's projections included",
    "parameters": "all parameters",
    "macs": "multiply-adds per sample with a nonzero weight, and those between activations",
    "macs_dense": "multiply-adds per sample",
    "disk_bytes": "bytes of the bitmask-compressed checkpoint",
    "dense_disk_bytes": "bytes of the dense checkpoint",
    "resident_bytes": "bytes of weights that the backend keeps in memory",
    "latency_seconds": "median seconds per batch",
    "baseline_seconds": "median seconds per batch of the baseline, in the same interleaved blocks",
    "speedup": "baseline time over this backend's time, median over interleaved blocks",
    "speedup_low": "lower end of its 95 % interval",
    "speedup_high": "upper end of its 95 % interval",
    "baseline": "the dense way that the speed-up is against",
    "verdict": "faster, slower, inconclusive or unstable",
    "blocks": "interleaved blocks timed",
    "collapse": "what the layer-collapse warning said, if it did",
    "not_pruned": "which layers the granularity had to leave dense, if any",
    "training_seconds": "seconds that training or fine-tuning this checkpoint took, when it was made",
}

# Every block's sample, from which speed-up, interval and verdict follow; null in runs from before they were kept.
SAMPLES = {
    "ratios": "baseline time over this backend's time, block by block",
    "control_ratios": "the same of the dense way that every block timed twice (A/A)",
}
TEXTS = {"baseline", "verdict", "collapse", "not_pruned"}
_NUMBERS = tuple(name for name in FIELDS if name not in TEXTS)
_WORDS = (*sorted(TEXTS), "reason")


def facts_of(case: Case, threads: int, status: str = "ok", **values: Any) -> dict[str, Any]:
    """The complete facts of a case; a NaN or infinite number becomes null, as JSON has no such thing."""
    unknown = set(values) - set(FIELDS) - set(SAMPLES) - {"reason"}
    if unknown or status not in STATUSES:
        raise ValueError(f"not facts of schema {SCHEMA}: {sorted(unknown) or status}")
    return {
        "schema": SCHEMA,
        "cell": case.cell.as_dict(),
        "backend": case.backend,
        "batch_size": case.batch_size,
        "threads": threads,
        "status": status,
        "reason": plain(values.get("reason")),
        **{name: plain(values.get(name)) for name in (*FIELDS, *SAMPLES)},
    }


def case_of(facts: Mapping[str, Any]) -> Case:
    """The case that facts tell of; UsageError for a schema that this version doesn't read."""
    if facts.get("schema") != SCHEMA:
        raise UsageError(
            f"facts have schema {facts.get('schema')!r}; this version reads {SCHEMA}: run the benchmark again"
        )
    try:
        saved_values.cell(facts["cell"], of_the_grid=True)
        check_shared(facts)
        if facts["accuracy"] is not None and facts["accuracy"] > 1:
            raise ValueError(f"accuracy is {facts['accuracy']!r}")
        case = Case(Cell.from_dict(facts["cell"]), str(facts["backend"]), facts["batch_size"])
        str(case.id)  # parses every name in it: a strange one is refused before it reaches a table
        return case
    except KeyError as error:
        raise UsageError(f"facts lack {error}; run the benchmark again") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"facts that can't be: {error}; run the benchmark again") from error


def check_shared(facts: Mapping[str, Any]) -> None:
    """ValueError, TypeError or KeyError where what all facts of schema 1 share can't be."""
    saved_values.numbers(facts, _NUMBERS)
    saved_values.texts(facts, _WORDS)
    saved_values.lists(facts, SAMPLES)
    saved_values.texts(facts, ("backend", "status"), needed=True)
    saved_values.whole(facts, ("threads", "batch_size"), least=1)
    if facts["status"] not in STATUSES:
        raise ValueError(f"status is {facts['status']!r}")
    if facts["status"] == "ok":
        for name in ("baseline", "verdict", "collapse"):
            facts[name]  # null or not, it must be said


def repetition_of(cell: Cell) -> Cell:
    """The cell with its seed cleared: cells equal under it are repetitions of one experiment."""
    return replace(cell, seed=0)


def plain(value: Any) -> Any:
    """The value as it is saved: a text as one plain line that its reader takes, None for a number JSON doesn't have."""
    if isinstance(value, str):
        return short_line(value, saved_values.MOST_WORDS)
    return None if isinstance(value, float) and not math.isfinite(value) else value
