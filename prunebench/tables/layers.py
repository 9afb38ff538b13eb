"""Tables of single layers, and the sparsity from which each of them is worth it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunebench.answers import LAYER_FIELDS
from prunebench.facts import FIELDS
from prunebench.runs import Run
from prunebench.shapes import distinct, known_networks
from prunebench.statistics import crossing
from prunebench.tables.answers import Key, apart, cell_text, latest
from prunebench.tables.rendering import speedup_text

_APART = ("layer", "networks", "roofs")  # no single values


def layer_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows = latest(runs, "layers", lambda f: (f["layer"]["id"], f["cell"]["sparsity"], f["batch_size"]))
    place = {shape.id: n for n, shape in enumerate(distinct(known_networks()))}
    return sorted(
        rows,
        key=lambda f: (
            place.get(f["layer"]["id"], len(place)), f["layer"]["id"], f["batch_size"], f["cell"]["sparsity"],
        ),
    )  # fmt: skip


def layer_details(runs: Sequence[Run]) -> pd.DataFrame:
    """All numbers, one row per case."""
    names = [name for name in (*FIELDS, *LAYER_FIELDS) if name not in _APART and not name.startswith("accuracy")]
    table = []
    for f in sorted(layer_rows(runs), key=lambda f: (f["machine"], f["threads"])):
        labels = {"machine": f["machine"], "threads": f["threads"], "layer": f["layer"]["id"],
                  "networks": " ".join(f["networks"]), "sparsity": f["cell"]["sparsity"],
                  "batch_size": f["batch_size"], "status": f["status"]}  # fmt: skip
        measured = {f"roof_{name}": (f["roofs"] or {}).get(name) for name in ("l1", "l2", "dense")}
        table.append({**labels, **{name: f.get(name) for name in names}, **measured})
    return pd.DataFrame(table)


def layer_tables(runs: Sequence[Run]) -> dict[Key, pd.DataFrame]:
    """{(machine, threads): a row per layer, batch size and sparsity}."""
    return {key: pd.DataFrame([_row(f) for f in rows]) for key, rows in apart(layer_rows(runs)).items()}


def _row(f: dict[str, Any]) -> dict[str, str]:
    labels = {
        "layer": f["layer"]["id"],
        "of": ", ".join(f["networks"]),
        "batch": str(f["batch_size"]),
        "sparsity": _percent(f["cell"]["sparsity"]),
    }
    if f["status"] != "ok":
        reason = cell_text(f"{f['status']}: {f['reason']}")
        return {**labels, "kernel": reason, **dict.fromkeys(_NUMBERS, "–")}
    percent = "–" if f["roof_percent"] is None else f"{f['roof_percent']:.0f} % of {f['roof']}"
    speed = speedup_text(f["speedup"], f["speedup_low"], f["speedup_high"], f["verdict"])
    numbers = (
        f"{1e6 * f['latency_seconds']:.4g}",
        f"{1e6 * f['baseline_seconds']:.4g}",
        f"{f['useful_gflops']:.3g}",
        f"{f['dense_equivalent_gflops']:.4g}",
        percent,
        f"{speed} over {f['baseline']}",
    )
    kernel = cell_text(", ".join(f[k] for k in ("kernel", "layout", "tile") if f[k]) or "–")
    return {**labels, "kernel": kernel, **dict(zip(_NUMBERS, numbers, strict=True))}


_NUMBERS = ("µs", "dense µs", "useful GFLOP/s", "dense-equivalent", "roof", "speed-up")


def breakeven_tables(runs: Sequence[Run]) -> dict[Key, pd.DataFrame]:
    """{(machine, threads): a row per layer, a column per batch size with its break-even sparsity}.

    Unstable timings are no points, and inconclusive ones neither.
    """
    return {key: _breakeven_table(rows) for key, rows in apart(layer_rows(runs)).items()}


def _breakeven_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    batches = sorted({f["batch_size"] for f in rows})
    by_layer: dict[str, list[dict[str, Any]]] = {}
    for f in rows:
        by_layer.setdefault(f["layer"]["id"], []).append(f)
    table = []
    for layer, own in by_layer.items():
        row = {"layer": layer, "of": ", ".join(own[0]["networks"])}
        for batch in batches:
            steady = [f for f in own
                      if f["batch_size"] == batch and f["status"] == "ok" and f["verdict"] != "unstable"]  # fmt: skip
            sure = [(f["cell"]["sparsity"], f["speedup"]) for f in steady if conclusive(f)]
            row[f"batch {batch}"] = INCONCLUSIVE if steady and not sure else breakeven(sure)
        table.append(row)
    return pd.DataFrame(table)


INCONCLUSIVE = "inconclusive"


def conclusive(row: Mapping[str, Any]) -> bool:
    """Whether it was told on which side of 1 a speed-up lies; of one over seeds, by every seed."""
    return INCONCLUSIVE not in str(row["verdict"])


def breakeven(points: Sequence[tuple[float, float]], in_time: bool = False) -> str:
    """The lowest sparsity at which (sparsity, speed-up) points pass 1: linear between them, or linear in time.

    `below 70 %` where the lowest measured one is faster already, `none` where none is; a sparsity above that loses
    again is told, because noise or a change of kernel can do that.
    """
    ordered = sorted(points)
    if not ordered:
        return "–"
    first = next((n for n, (_, speedup) in enumerate(ordered) if speedup > 1), None)
    if first is None:
        return f"none up to {_percent(ordered[-1][0])}" if len(ordered) > 1 else f"none at {_percent(ordered[0][0])}"
    lost = [s for s, speedup in ordered[first:] if speedup <= 1]
    again = f", slower again at {', '.join(map(_percent, lost))}" if lost else ""
    if first == 0:
        return f"{'' if ordered[0][0] == 0 else 'below '}{_percent(ordered[0][0])}{again}"
    before, after = [(s, 1 / ratio if in_time else ratio) for s, ratio in ordered[first - 1 : first + 1]]
    return f"{100 * crossing(before, after, 1.0):.0f} %{again}"


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"
