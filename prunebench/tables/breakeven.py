"""The sparsity from which each backend runs a network faster than dense torch, from the grid's runs over sparsities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from prunebench.cell import NONE
from prunebench.runs import Run
from prunebench.tables.answers import Key
from prunebench.tables.grid import Row, backends_of, detail, frame, labels_of
from prunebench.tables.layers import INCONCLUSIVE, breakeven, conclusive

_NETWORK = ["dataset", "model", "recipe", "batch_size"]
_METHOD = ["dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule", "batch_size"]
_BASELINE = "dense"  # against itself in another layout: what crosses 1 there is noise
_LEAST = 2  # pruned sparsities: between an unpruned network and a single one a line says too little


def network_breakeven_tables(runs: Sequence[Run]) -> dict[Key, pd.DataFrame]:
    """{(machine, threads): a row per network and method, a column per backend with its break-even sparsity}.

    Interpolated in time per batch, which is near linear in sparsity, between pruned networks alone: the unpruned one
    may run by other kernels, so it only tells whether a backend is faster from no pruning on. Unstable timings are no
    points, and inconclusive ones neither. Methods measured at one sparsity only are left out.
    """
    if not any(run.facts for run in runs):
        return {}
    table = frame(runs)
    timed = table[(table["verdict"] != "unstable") & (table["status"] == "ok")]
    if timed.empty:
        return {}
    details = detail(timed)
    found = {}
    for (machine, threads), own in details.groupby(["machine", "threads"]):
        rows = _rows(own)
        if rows:
            found[str(machine), int(threads)] = pd.DataFrame(rows)
    return found


def _rows(own: pd.DataFrame) -> list[dict[str, str]]:
    backends = [b for b in backends_of(own) if b != _BASELINE]
    unpruned: dict[tuple[Any, ...], list[Row]] = {}
    methods: dict[tuple[Any, ...], list[Row]] = {}
    for row in cast("list[Row]", own.to_dict("records")):
        if row["criterion"] == NONE:
            unpruned.setdefault(tuple(row[key] for key in _NETWORK), []).append(row)
        else:
            methods.setdefault(tuple(row[key] for key in _METHOD), []).append(row)
    rows = []
    for group in methods.values():
        first, sparsities = group[0], {row["sparsity"] for row in group}
        if len(sparsities) < _LEAST:
            continue
        both = [*unpruned.get(tuple(first[key] for key in _NETWORK), []), *group]
        points = [row for row in both if row["speedup"] == row["speedup"]]
        labels = {name: text for name, text in labels_of(first).items() if name != "sparsity"}
        ends = f"{100 * min(sparsities):g} to {100 * max(sparsities):g} %"
        rows.append({**labels, "measured": ends, **{b: _text(points, b) for b in backends}})
    return rows


def _text(points: Sequence[Row], backend: str) -> str:
    own = [row for row in points if row["backend"] == backend]
    pruned = [row for row in own if row["criterion"] != NONE]
    if not pruned:  # of the unpruned network alone: of the method it says nothing
        return "–"
    sure = [(row["sparsity"], row["speedup"]) for row in pruned if conclusive(row)]
    faster = [(0.0, row["speedup"]) for row in own
              if row["criterion"] == NONE and conclusive(row) and row["speedup"] > 1]  # fmt: skip
    return breakeven([*faster, *sure], in_time=True) if sure else INCONCLUSIVE
