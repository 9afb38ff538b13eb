"""Results tables from saved runs alone: the same runs give the same bytes. Nothing here trains or times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from prunebench.atomic import make_folder, write_text
from prunebench.cell import NONE
from prunebench.errors import UsageError, unknown
from prunebench.facts import FIELDS
from prunebench.runs import Run

FORMATS = {"github": ".md", "csv": ".csv", "html": ".html", "latex": ".tex"}
_TABULATE = {"github": "github", "html": "html", "latex": "latex_booktabs"}
_CELL = ["dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule", "sparsity"]
_GROUP = ["machine", "threads", *_CELL, "batch_size"]
_NUMBERS = [f for f in FIELDS if f not in ("baseline", "verdict", "collapse")]
_DECIDED = ("faster", "slower")
BACKENDS_APART = 0.0005  # accuracies of one checkpoint through two backends are called different beyond 0.05 points


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per case; where runs on one machine measured the same case again, the latest counts."""
    rows = []
    for run in runs:
        for facts in run.facts:
            cell = facts["cell"]
            rows.append({
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
            "collapse": _shared(ok["collapse"]), "cases": len(group),
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
    order = table.assign(_pruned=table["criterion"] != NONE)
    columns = ["machine", "threads", "dataset", "model", "recipe", "batch_size", "_pruned", *_CELL[3:], "backend"]
    return order.sort_values(columns, kind="stable").drop(columns="_pruned").reset_index(drop=True)


def main_table(details: pd.DataFrame, machine: str, threads: int) -> pd.DataFrame:
    """The table to read: a row per cell and batch size, a column per backend, the unpruned control first.

    One machine and thread count only: timings of different ones never share a column.
    """
    mine = details[(details["machine"] == machine) & (details["threads"] == threads)]
    backends = _backends(mine)
    rows = []
    for _, group in mine.groupby([*_CELL, "batch_size"], sort=False):
        by_backend = {str(row["backend"]): row for _, row in group.iterrows()}
        present = [by_backend[b] for b in backends if b in by_backend]
        first = next((row for row in present if row["n"] > 0), present[0])
        facts = {"accuracy %": _accuracy(first, present), "nonzeros": _nonzeros(first), "bytes on disk": _disk(first)}
        rows.append({**_labels(first), **facts, **{b: _speed(by_backend.get(b)) for b in backends}})
    return pd.DataFrame(rows)


def bytes_table(details: pd.DataFrame, machine: str, threads: int) -> pd.DataFrame:
    """Bytes of weights: on disk, dense and compressed, and in memory per backend; one row per cell."""
    mine = details[(details["machine"] == machine) & (details["threads"] == threads) & (details["n"] > 0)]
    backends = _backends(mine)
    rows = []
    for _, group in mine.groupby(_CELL, sort=False):
        first = group.iloc[0]
        resident = group.groupby("backend")["resident_bytes"].mean()
        ratio = first["parameters"] / (first["parameters"] - first["prunable"] + first["nonzeros"])
        labels = {k: v for k, v in _labels(first).items() if k != "batch"}
        disk = {
            "parameters": f"{ratio:.1f}× fewer",
            "dense file": _kb(first["dense_disk_bytes"]),
            "bitmask file": _disk(first),
        }
        rows.append({**labels, **disk, **{f"{b} in memory": _kb(resident.get(b)) for b in backends}})
    return pd.DataFrame(rows)


def _backends(details: pd.DataFrame) -> list[str]:
    found = set(details["backend"])
    known = [b for b in ("dense", "masked", "scipy_csr", "csr") if b in found]
    return known + sorted(found - set(known))


def _kb(count: float | None) -> str:
    return "–" if count is None or np.isnan(count) else f"{count / 1000:,.1f} kB"


def _labels(row: pd.Series) -> dict[str, str]:
    method = "unpruned" if row["criterion"] == NONE else " ".join(row[c] for c in _CELL[3:7])
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
    return f"{row['nonzeros']:,.0f} of {row['prunable']:,.0f}" + (" (layer collapse)" if row["collapse"] else "")


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


def render(table: pd.DataFrame, format: str) -> str:
    """A table as text in one of FORMATS."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    rows = table.astype(str).values.tolist()
    text = tabulate(rows, headers=list(table.columns), tablefmt=_TABULATE[format], disable_numparse=True)
    # Without the character set a browser may read the file as Latin-1.
    return ('<meta charset="utf-8">\n' if format == "html" else "") + str(text) + "\n"


def write_tables(
    runs: Sequence[Run], folder: Path, show: Sequence[Run] | None = None
) -> tuple[list[Path], pd.DataFrame]:
    """Write every table of the runs into a folder, remove tables of runs no longer there; returns (files, main table).

    The main table is that of the machine and thread count measured last, of the runs to show (None: of all).
    """
    table = frame(runs)
    details = detail(table)
    texts: dict[str, str] = {"detail.csv": render(details, "csv")}
    groups = details[["machine", "threads"]].drop_duplicates().itertuples(index=False)
    names = {(str(g.machine), int(g.threads)): f"{g.machine}-t{g.threads}" for g in groups}
    for (machine, threads), name in names.items():
        for kind, make in (("main", main_table), ("bytes", bytes_table)):
            made = make(details, machine, threads)
            texts.update({f"{kind}-{name}{suffix}": render(made, format) for format, suffix in FORMATS.items()})
    texts["index.md"] = _index(runs, names)
    make_folder(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    for old in [*folder.glob("main-*"), *folder.glob("bytes-*"), folder / "detail.csv", folder / "index.md"]:
        if old.name not in texts:
            old.unlink(missing_ok=True)
    shown = table if show is None else frame(show)
    last = shown.iloc[-1]
    return [folder / name for name in texts], main_table(detail(shown), str(last["machine"]), int(last["threads"]))


def _index(runs: Sequence[Run], names: dict[tuple[str, int], str]) -> str:
    machines = {run.machine.get("id", "unknown"): run.machine for run in runs}
    tables = pd.DataFrame([
        {"speed and accuracy": f"[main-{name}](main-{name}.md)", "bytes": f"[bytes-{name}](bytes-{name}.md)",
         "machine": machine, "threads": threads, "what it is": _machine(machines[machine])}
        for (machine, threads), name in names.items()
    ])  # fmt: skip
    sources = pd.DataFrame([
        {"run": run.name, "machine": run.machine.get("id", "unknown"), "cases": len(run.facts), "when": run.datetime,
         "complete": "yes" if run.complete else "cut off"}
        for run in runs
    ])  # fmt: skip
    return f"{_NOTES}\n{render(tables, 'github')}\nMade from these runs:\n\n{render(sources, 'github')}"


def _machine(machine: dict[str, Any]) -> str:
    engine, versions = machine.get("engine", {}), machine.get("versions", {})
    parts = [
        machine.get("cpu", "unknown CPU"),
        f"{machine.get('cores', '?')} cores",
        f"engine {engine.get('isa', 'off')}",
    ]
    return ", ".join(parts + [f"{k} {v}" for k, v in sorted(versions.items())])


_NOTES = """# Tables

Generated by `prunebench tables` from the runs under `results/runs/`; edits here are lost. Accuracy: mean ± sample
standard deviation over n seeds, on the test split, through the first backend of the row. Each backend's column:
median milliseconds per batch, then the speed-up over the faster of torch's dense ways (eager, channels_last) with its
95 % bootstrap interval over interleaved blocks; over several seeds the geometric mean. A speed-up with a word behind
it is not one to rely on: `inconclusive` (the interval doesn't clear 1 by more than the A/A control and 1 %) or
`unstable` (the A/A control or the samples drifted). Bytes on disk: bitmask encoding against the dense checkpoint.
The bytes tables count parameters, files, and the weights that each backend keeps in memory. `detail.csv` holds all
numbers.
"""
