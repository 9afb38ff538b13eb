"""The grid's tables from saved runs alone: the same runs give the same bytes. Nothing here trains or times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prunebench.cell import NONE
from prunebench.controls import copied
from prunebench.errors import UsageError
from prunebench.facts import FIELDS, TEXTS
from prunebench.runs import Run
from prunebench.tables.rendering import FORMATS, render

__all__ = ["FORMATS", "backends_of", "bytes_table", "detail", "frame", "labels_of", "main_table", "render"]

_CELL = ["dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule", "sparsity"]
_GROUP = ["machine", "threads", *_CELL, "batch_size"]
_NUMBERS = [f for f in FIELDS if f not in TEXTS]
_DECIDED = ("faster", "slower")
BACKENDS_APART = 0.0005  # accuracies of one checkpoint through two backends are called different beyond 0.05 points


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per case; where runs on one machine measured the same case again, the latest counts."""
    rows = []
    for run in runs:
        for facts in run.facts:
            cell = facts["cell"]
            rows.append({
                **dict.fromkeys(FIELDS),  # those that an older run didn't know are null
                **{k: v for k, v in facts.items() if k not in ("cell", "schema")}, **{k: cell[k] for k in _CELL},
                "seed": cell["seed"], "recipe": cell["recipe"]["name"], "identity": json.dumps(cell, sort_keys=True),
                "machine": run.machine.get("id", "unknown"), "run": run.name, "datetime": run.datetime,
            })  # fmt: skip
    if not rows:
        raise UsageError("no saved run holds a result yet; run: pytest benchmarks --benchmark-save=NAME")
    table = pd.DataFrame(rows).sort_values(["datetime", "run"], kind="stable")
    table = table.drop_duplicates(["machine", "threads", "identity", "backend", "batch_size"], keep="last")
    table[_NUMBERS] = table[_NUMBERS].apply(pd.to_numeric)
    return table


def detail(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, backend and batch size over its seeds: n, means, sample deviations, the shared verdict.

    Speed-ups and their interval ends are geometric means over seeds; a verdict stands where all seeds agree.
    """
    rows = []
    for key, group in table.groupby([*_GROUP, "backend"], sort=False):
        ok = group[group["status"] == "ok"]
        row = dict(zip([*_GROUP, "backend"], key, strict=True)) | {
            "n": len(ok), "accuracy_std": ok["accuracy"].std(ddof=1) if len(ok) > 1 else np.nan,
            "status": _shared(group["status"]), "verdict": _shared(ok["verdict"]), "baseline": _shared(ok["baseline"]),
            "collapse": _shared(ok["collapse"]), "not_pruned": _shared(ok["not_pruned"]), "cases": len(group),
        }  # fmt: skip
        for name in _NUMBERS:
            geometric = name.startswith("speedup")
            values = ok[name].dropna()
            mean = float(np.exp(np.log(values).mean())) if geometric and len(values) else values.mean()
            row[name] = mean
        rows.append(row)
    return _sorted(pd.DataFrame(rows))


def _shared(values: pd.Series) -> str:
    kinds = sorted(set(values.dropna()))
    return kinds[0] if len(kinds) == 1 else ("mixed: " + " ".join(kinds) if kinds else "")


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    # A twin stands right below the cell whose proportions it copies, among the rows of that cell's method.
    pairs = [copied(row.scope) or (row.criterion, row.scope) for row in table.itertuples()]
    keys = {
        "_pruned": table["criterion"] != NONE,
        "_criterion": [criterion for criterion, _ in pairs],
        "_scope": [scope for _, scope in pairs],
        "_twin": [row.criterion if copied(row.scope) else "" for row in table.itertuples()],
    }
    columns = ["machine", "threads", "dataset", "model", "recipe", "batch_size", "_pruned", "_criterion", "granularity",
               "_scope", "schedule", "sparsity", "_twin", "backend"]  # fmt: skip
    return table.assign(**keys).sort_values(columns, kind="stable").drop(columns=list(keys)).reset_index(drop=True)


def main_table(details: pd.DataFrame, machine: str, threads: int) -> pd.DataFrame:
    """The table to read: a row per cell and batch size, a column per backend, the unpruned control first.

    One machine and thread count only: timings of different ones never share a column.
    """
    mine = details[(details["machine"] == machine) & (details["threads"] == threads)]
    backends = backends_of(mine)
    rows = []
    for _, group in mine.groupby([*_CELL, "batch_size"], sort=False):
        by_backend = {str(row["backend"]): row for _, row in group.iterrows()}
        present = [by_backend[b] for b in backends if b in by_backend]
        first = next((row for row in present if row["n"] > 0), present[0])
        facts = {"accuracy %": _accuracy(first, present), "nonzeros": _nonzeros(first), "bytes on disk": _disk(first)}
        rows.append({**labels_of(first), **facts, **{b: _speed(by_backend.get(b)) for b in backends}})
    return pd.DataFrame(rows)


def bytes_table(details: pd.DataFrame, machine: str, threads: int) -> pd.DataFrame:
    """Bytes of weights: on disk, dense and compressed, and in memory per backend; one row per cell."""
    mine = details[(details["machine"] == machine) & (details["threads"] == threads) & (details["n"] > 0)]
    backends = backends_of(mine)
    rows = []
    for _, group in mine.groupby(_CELL, sort=False):
        first = group.iloc[0]
        resident = group.groupby("backend")["resident_bytes"].mean()
        ratio = first["parameters"] / (first["parameters"] - first["prunable"] + first["nonzeros"])
        labels = {k: v for k, v in labels_of(first).items() if k != "batch"}
        disk = {
            "parameters": f"{ratio:.1f}× fewer",
            "dense file": _kb(first["dense_disk_bytes"]),
            "bitmask file": _disk(first),
        }
        rows.append({**labels, **disk, **{f"{b} in memory": _kb(resident.get(b)) for b in backends}})
    return pd.DataFrame(rows)


def backends_of(details: pd.DataFrame) -> list[str]:
    """The backends measured, in the order of their columns."""
    found = set(details["backend"])
    known = [b for b in ("dense", "masked", "scipy_csr", "csr") if b in found]
    return known + sorted(found - set(known))


def _kb(count: float | None) -> str:
    return "–" if count is None or np.isnan(count) else f"{count / 1000:,.1f} kB"


def labels_of(row: pd.Series | Mapping[str, Any]) -> dict[str, str]:
    """What a row is about, as it stands in its first columns."""
    pair = copied(row["scope"])
    if row["criterion"] == NONE:
        method = "unpruned"
    elif pair is None:
        method = " ".join(row[c] for c in _CELL[3:7])
    else:
        named = " ".join([pair[0], row["granularity"], pair[1], row["schedule"]])
        method = f"control: {row['criterion']}, same proportions as {named}"
    return {
        "dataset": row["dataset"],
        "model": row["model"],
        "recipe": row["recipe"],
        "pruned by": method,
        "sparsity": f"{100 * row['sparsity']:g} %",
        "batch": str(row["batch_size"]),
    }


def _accuracy(row: pd.Series, others: Sequence[pd.Series]) -> str:
    if row["n"] == 0:
        return str(row["status"])
    spread = f" ± {100 * row['accuracy_std']:.2f}" if row["n"] > 1 else ""
    lost = "" if row["status"] == "ok" else f" of {row['cases']}, {row['status']}"
    # A backend that computes something else must not hide behind the first one's accuracy.
    apart = [f", {o['backend']} {100 * o['accuracy']:.2f}" for o in others
             if o["n"] > 0 and abs(o["accuracy"] - row["accuracy"]) > BACKENDS_APART]  # fmt: skip
    return f"{100 * row['accuracy']:.2f}{spread} (n={row['n']}{lost}){''.join(apart)}"


def _nonzeros(row: pd.Series) -> str:
    if row["n"] == 0:
        return "–"
    noted = [("layer collapse", row["collapse"]), ("some layers left dense", row["not_pruned"])]
    said = "; ".join(words for words, what in noted if what)
    return f"{row['nonzeros']:,.0f} of {row['prunable']:,.0f}" + (f" ({said})" if said else "")


def _disk(row: pd.Series) -> str:
    if row["n"] == 0:
        return "–"
    return f"{_kb(row['disk_bytes'])} ({row['dense_disk_bytes'] / row['disk_bytes']:.1f}× smaller)"


def _speed(row: pd.Series | None) -> str:
    """`0.412 ms, 2.31× [2.25, 2.40]`: latency per batch, speed-up over the fastest dense way, its 95 % interval."""
    if row is None:
        return "–"
    if row["n"] == 0:
        return str(row["status"])
    doubt = "" if row["verdict"] in _DECIDED else f" {row['verdict']}"
    doubt += "" if row["status"] == "ok" else f" (n={row['n']} of {row['cases']})"
    ends = f"[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
    return f"{1000 * row['latency_seconds']:.3g} ms, {row['speedup']:.2f}× {ends}{doubt}"
