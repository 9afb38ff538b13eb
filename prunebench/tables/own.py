"""What `prunebench compile` says of somebody's own network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from prunebench.tables.layers import breakeven
from prunebench.tables.rendering import render, speedup_text

if TYPE_CHECKING:
    from prunebench.measuring.own import Report, Way

ACCURACY = (
    "Accuracy is not judged here: pruning at once costs some. Fine-tune with pb.Pruner, then compare both networks on "
    "your test data: docs/prune-your-own-model.md."
)
_SHOWN = 5


def own_text(report: Report, name: str, machine: str, trained: bool = True) -> str:
    """The whole answer: the network, a table, break-even, the verdict, what stays in torch, what isn't judged."""
    size = "×".join(map(str, report.input_shape))
    head = f"{name}: {report.parameters:,} parameters, {report.prunable:,} prunable, {report.macs:,} multiply-adds"
    zeros = 1 - report.nonzeros / report.prunable
    lines = [
        head + ("" if trained else "; random weights, which run like any others"),
        f"input {size}, {report.threads} thread{'s' if report.threads > 1 else ''}, {machine}"
        f"; pruned at once by {report.criterion}, {report.scope}"
        + (f"; {100 * zeros:.1f} % of its weights are zero already" if zeros >= 0.005 else ""),
        "",
        render(own_table(report), "github").rstrip(),
        "",
        f"break-even  {breakeven_text(report)}",
        f"verdict     {verdict_text(report)}",
        f"in torch    {left_text(report)}",
        *(f"note        {note}" for note in report.notes),
        ACCURACY,
    ]
    return "\n".join(lines) + "\n"


def own_table(report: Report) -> pd.DataFrame:
    """A row per way: milliseconds, speed-up over the fastest dense way, bytes, error against float64."""
    rows = []
    for way in [*report.dense, *report.sparse]:
        rows.append({
            "way": way.name,
            "zeros": f"{100 * way.sparsity:.1f} %",
            "ms": "–" if way.seconds is None else f"{1000 * way.seconds:.3g}",
            "speed-up": _speedup(way, report),
            "on disk": _bytes(way.disk_bytes),
            "resident": _bytes(way.resident_bytes),
            "error": "–" if way.relative_error is None else f"{way.relative_error:.0e}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def breakeven_text(report: Report) -> str:
    """From which sparsity on the engine beats the fastest dense way; linear in time between those timed."""
    timed = [w for w in report.sparse if w.verdict != "unstable"]
    points = [(round(w.sparsity, 3), w.speedup) for w in timed if w.speedup is not None]
    if not points:
        return "not known: nothing could be timed reliably; keep the machine idle and try again"
    return breakeven(points, in_time=True).replace("–", "not known")


def verdict_text(report: Report) -> str:
    """One sentence for the sparsest network: by how much it is faster here, by rule."""
    timed = [w for w in report.sparse if w.speedup is not None]
    if not timed:
        return "none: the engine gave no right answer, or nothing dense ran beside it"
    way = timed[-1]
    speed = speedup_text(way.speedup or 0.0, way.speedup_low, way.speedup_high, None)
    said = {
        "faster": f"faster on this machine: {speed} over {report.baseline}",
        "slower": f"slower on this machine: {speed} over {report.baseline}",
        "inconclusive": f"no difference that could be told from {report.baseline}: {speed}; give more --seconds",
    }.get(way.verdict or "", f"unstable: {speed}, but the machine was too busy to rely on it")
    return f"with {100 * way.sparsity:.0f} % zeros, {said}"


def left_text(report: Report) -> str:
    """Which layers torch runs in the sparsest network, and why."""
    ways = [w for w in report.sparse if w.form is not None]
    left = ways[-1].left_to_torch if ways else []
    if not ways or not left:
        return "no conv or linear layer" if ways else "not known"
    more = f" and {len(left) - _SHOWN} more (--json lists them)" if len(left) > _SHOWN else ""
    return f"at {100 * ways[-1].sparsity:.0f} % zeros: {'; '.join(left[:_SHOWN])}{more}"


def _speedup(way: Way, report: Report) -> str:
    if way.status != "ok":
        return f"{way.status}: {way.reason}".replace("|", "/")[:80]
    if way.name == report.baseline:
        return "1 (baseline)"
    return "–" if way.speedup is None else speedup_text(way.speedup, way.speedup_low, way.speedup_high, way.verdict)


def _bytes(count: int | None) -> str:
    if count is None:
        return "–"
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"
