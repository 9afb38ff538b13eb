"""Facts of the questions beside the grid: schema 1 with what a layer's or a network's speed needs besides.

They stand in `benchmark.extra_info` like the grid's facts and carry `question`, by which they are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prunebench import saved_values
from prunebench.errors import UsageError
from prunebench.facts import FIELDS, SAMPLES, SCHEMA, STATUSES, check_shared, plain

QUESTIONS = ("layers", "networks", "claims")

# Beyond FIELDS; a rate counts a multiply-add as two operations.
LAYER_FIELDS = {
    "layer": "the layer's id and sizes",
    "networks": "the networks that have it",
    "kernel": "which kernel the engine chose",
    "layout": "and which layout of activations",
    "tile": "and which register tile, where it says",
    "useful_gflops": "operations with a nonzero weight, in 10^9 per second",
    "dense_equivalent_gflops": "operations of the dense layer over the sparse layer's time",
    "roof": "l1 or dense: the roof that `roof_percent` is of",
    "roof_percent": "useful operations over that roof",
    "roofs": "{l1, l2, dense} in 10^9 operations per second at these threads, measured in the same run",
}
NETWORK_FIELDS = {
    "input_shape": "channels, height and width of one sample",
    "arms": "{name: facts of that way to run it}; see ARM_FIELDS",
}
CLAIM_FIELDS = {"dense_resident_bytes": "bytes of weights that the baseline keeps in memory"}
ARM_FIELDS = {
    "status": "ok, off (not installed, or can't run it) or failed (its output is wrong)",
    "reason": "why it isn't ok",
    "relative_error": "of its output against float64",
    "seconds": "median seconds per batch",
    "speedup": "the baseline's time over this arm's, median over blocks",
    "speedup_low": "lower end of its 95 % interval",
    "speedup_high": "upper end of its 95 % interval",
    "verdict": "faster, slower, inconclusive or unstable",
    "blocks": "interleaved blocks timed; a clearly slower arm is dropped after the first few",
    "compile_seconds": "seconds until it was ready",
    "version": "of the package, where it isn't torch",
    "process": "own, or shared with the other arms; null in older runs, which shared it",
}
_EXTRA = {"layers": LAYER_FIELDS, "networks": NETWORK_FIELDS, "claims": CLAIM_FIELDS}
_NAME = re.compile(r"[A-Za-z0-9_:=.]{1,80}")  # of a model, a layer, an arm: it becomes part of a table
_NUMBERS = ("relative_error", "seconds", "speedup", "speedup_low", "speedup_high", "blocks", "compile_seconds")


def measured(costs: Any, resident: int, result: Any, baseline: str) -> dict[str, Any]:
    """The facts that a layer and a network share: Costs, resident bytes, and a timing.Comparison with its baseline."""
    return {
        "nonzeros": costs.nonzeros,
        "prunable": costs.prunable,
        "parameters": costs.parameters,
        "macs": costs.macs,
        "macs_dense": costs.macs_dense,
        "resident_bytes": resident,
        "latency_seconds": result.seconds,
        "baseline_seconds": result.baseline_seconds,
        "speedup": result.speedup,
        "speedup_low": result.low,
        "speedup_high": result.high,
        "baseline": baseline,
        "verdict": result.verdict,
        "blocks": result.blocks,
        "ratios": result.ratios,
        "control_ratios": result.control_ratios,
    }


def answer(
    question: str, case: Any, status: str = "ok", *, seed: int = 0, reason: str | None = None, **values: Any
) -> dict[str, Any]:
    """Complete facts of a case (model, sparsity, backend, batch_size, threads); what is missing is null."""
    extra = _EXTRA[question]
    unknown = set(values) - set(FIELDS) - set(SAMPLES) - set(extra)
    if unknown or status not in STATUSES:
        raise ValueError(f"not facts of schema {SCHEMA}: {sorted(unknown) or status}")
    method = {"criterion": "l1", "granularity": "weight", "scope": "layerwise", "schedule": "one_shot"}
    cell = {"dataset": None, "model": case.model, **method, "sparsity": case.sparsity, "seed": seed, "recipe": None}
    return {
        "schema": SCHEMA,
        "question": question,
        "cell": cell,
        "backend": case.backend,
        "batch_size": case.batch_size,
        "threads": case.threads,
        "status": status,
        "reason": plain(reason),
        **{name: plain(values.get(name)) for name in (*FIELDS, *SAMPLES, *extra)},
    }


def arm(status: str = "ok", **values: Any) -> dict[str, Any]:
    """Complete facts of one arm."""
    unknown = set(values) - set(ARM_FIELDS)
    if unknown:
        raise ValueError(f"not facts of an arm: {sorted(unknown)}")
    return {"status": status, **{name: plain(values.get(name)) for name in ARM_FIELDS if name != "status"}}


def check_answer(facts: Mapping[str, Any]) -> None:
    """UsageError where facts of a question can't be, or are of a schema that this version doesn't read."""
    if facts.get("schema") != SCHEMA or facts.get("question") not in QUESTIONS:
        raise UsageError(
            f"facts have schema {facts.get('schema')!r} and question {facts.get('question')!r}; this version reads "
            f"{SCHEMA} and {', '.join(QUESTIONS)}: run the benchmark again"
        )
    try:
        cell = facts["cell"]
        saved_values.cell(cell, of_the_grid=False)
        check_shared(facts)
        _check_name(cell["model"])
        # A claim is about a network without a weight as well.
        if not 0 <= cell["sparsity"] < 1 and (facts["question"], cell["sparsity"]) != ("claims", 1):
            raise ValueError(f"sparsity is {cell['sparsity']!r}")
        {"layers": _check_layer, "networks": _check_network, "claims": _check_claim}[facts["question"]](facts)
    except KeyError as error:
        raise UsageError(f"facts lack {error}; run the benchmark again") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"facts that can't be: {error}; run the benchmark again") from error


def _check_layer(facts: Mapping[str, Any]) -> None:
    measured = facts["status"] == "ok"
    _check_name(saved_values.table(facts["layer"], "layer")["id"])
    if not isinstance(facts["networks"], list) or not facts["networks"]:
        raise ValueError("networks is no list of names")
    for name in facts["networks"]:
        _check_name(name)
    words = ("kernel", "layout", "tile", "roof")
    saved_values.texts({name: facts[name] for name in words}, words)
    saved_values.numbers(facts, ("roof_percent",))
    times = ("useful_gflops", "dense_equivalent_gflops", "latency_seconds", "baseline_seconds", "speedup")
    saved_values.numbers(facts, times, needed=measured)
    saved_values.texts(facts, ("baseline",), needed=measured)
    roofs = saved_values.table(facts["roofs"] or {}, "roofs")
    saved_values.numbers(roofs, roofs)


def _check_claim(facts: Mapping[str, Any]) -> None:
    saved_values.numbers(facts, CLAIM_FIELDS)


def _check_network(facts: Mapping[str, Any]) -> None:
    measured = facts["status"] == "ok"
    saved_values.numbers(facts, ("speedup", "blocks"), needed=measured)
    saved_values.texts(facts, ("baseline",), needed=measured)
    for name, one in saved_values.table(facts["arms"] or {}, "arms").items():
        _check_name(name)
        saved_values.numbers(saved_values.table(one, name), _NUMBERS)
        saved_values.texts(one, ("reason", "verdict", "version", "process"))
        saved_values.texts(one, ("status",), needed=True)
        if one["status"] == "ok":
            saved_values.numbers(one, ("seconds", "blocks"), needed=True)
        one["reason"], one["verdict"]


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a name is {name!r}")
