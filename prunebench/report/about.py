"""Where the numbers come from: machines, runs, and the cases that gave none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from prunebench.report.block import Block, block_of, flat
from prunebench.runs import Run


def troubles(runs: Sequence[Run]) -> Block | None:
    """Every case that did not end well, with the reason; None where all did."""
    rows = []
    for run in runs:
        for f in (*run.facts, *run.answers):
            if f["status"] != "ok":
                cell, layer = f["cell"], (f.get("layer") or {}).get("id")
                what = layer or " ".join(str(cell[c]) for c in ("model", "dataset", "criterion", "scope") if cell[c])
                rows.append({
                    "case": what, "sparsity": f"{100 * cell['sparsity']:g} %", "seed": str(cell["seed"]),
                    "backend": str(f["backend"]), "batch": str(f["batch_size"]), "threads": str(f["threads"]),
                    "status": f["status"], "reason": str(f.get("reason") or "not told"), "run": run.name,
                })  # fmt: skip
    return block_of("troubles", "Cases without a result", pd.DataFrame(rows)) if rows else None


def machines(runs: Sequence[Run]) -> list[tuple[str, dict[str, str]]]:
    """(id, {what: value}) of every machine, an engine build and versions included: what a timing depends on."""
    found = {str(run.machine.get("id", "unknown")): run.machine for run in runs}
    return [(name, {k: flat(v) for k, v in found[name].items() if k != "id"}) for name in sorted(found)]


def sources(runs: Sequence[Run]) -> Block:
    """The runs that the page is made from."""
    rows = [
        {"run": run.name, "measured": run.datetime, "machine": str(run.machine.get("id", "unknown")),
         "cases": f"{run.cases:,}", "complete": "yes" if run.complete else "cut off"}
        for run in runs
    ]  # fmt: skip
    return block_of("runs", "Saved runs", pd.DataFrame(rows))


def first_and_last(times: Iterable[str]) -> tuple[str, str]:
    """The earliest and the latest day of ISO dates; empty where there is none."""
    days = sorted(time[:10] for time in times if time)
    return (days[0], days[-1]) if days else ("", "")
