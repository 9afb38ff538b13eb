"""The sparsity from which each backend runs a network faster than dense torch, from the grid's runs over sparsities."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from prunebench.cell import NONE
from prunebench.runs import Run
from prunebench.tables.answers import Key
from prunebench.tables.grid import backends_of, detail, frame, labels_of
from prunebench.tables.layers import breakeven

_METHOD = ["dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule", "batch_size"]
_BASELINE = "dense"  # against itself in another layout: what crosses 1 there is noise
_LEAST = 2  # pruned sparsities: between an unpruned network and a single one a line says too little


def network_breakeven_tables(runs: Sequence[Run]) -> dict[Key, pd.DataFrame]:
    """{(machine, threads): a row per network and method, a column per backend with its break-even sparsity}.

    Interpolated in time per batch, which is near linear in sparsity; the unpruned network through the same backend is
    a point too, unstable timings are none. Methods measured at one sparsity only are left out.
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
    rows = []
    pruned = own[own["criterion"] != NONE]
    for _, group in pruned.groupby(_METHOD, sort=False):
        if group["sparsity"].nunique() < _LEAST:
            continue
        first = group.iloc[0]
        same = (own["criterion"] == NONE) & (own[["dataset", "model", "recipe", "batch_size"]].eq(
            first[["dataset", "model", "recipe", "batch_size"]]).all(axis=1))  # fmt: skip
        points = pd.concat([own[same], group]).dropna(subset=["speedup"])
        labels = {name: text for name, text in labels_of(first).items() if name != "sparsity"}
        ends = f"{100 * group['sparsity'].min():g} to {100 * group['sparsity'].max():g} %"
        rows.append({**labels, "measured": ends, **{b: _text(points[points["backend"] == b]) for b in backends}})
    return rows


def _text(points: pd.DataFrame) -> str:
    return breakeven(list(zip(points["sparsity"], points["speedup"], strict=True)), in_time=True)
