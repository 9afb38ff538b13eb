"""Tables of whole networks: every way to run them, and the speed-up over the fastest dense one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from prunebench.answers import ARM_FIELDS
from prunebench.runs import Run
from prunebench.tables.answers import Key, apart, cell_text, latest
from prunebench.tables.rendering import speedup_text

_ORDER = ("lenet300", "lenet5", "resnet20", "resnet18_cifar", "resnet50")
_ARMS = ("dense", "dense_channels_last", "torch_compile", "torch_jit", "onnxruntime", "openvino", "jax",
         "tensorflow")  # fmt: skip
_OURS = ("csr_unpruned", "csr")
_OVERALL = ("relative_error", "nonzeros", "prunable", "parameters", "macs", "macs_dense", "disk_bytes",
            "dense_disk_bytes", "resident_bytes")  # fmt: skip


def network_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows = latest(runs, "networks", lambda f: (f["cell"]["model"], f["cell"]["sparsity"], f["batch_size"]))
    place = {name: n for n, name in enumerate(_ORDER)}
    return sorted(
        rows,
        key=lambda f: (
            place.get(f["cell"]["model"], len(place)), f["cell"]["model"], f["batch_size"], f["cell"]["sparsity"],
        ),
    )  # fmt: skip


def network_details(runs: Sequence[Run]) -> pd.DataFrame:
    """All numbers, one row per case and arm; a case that failed has one row without an arm."""
    table = []
    for f in sorted(network_rows(runs), key=lambda f: (f["machine"], f["threads"])):
        labels = {"machine": f["machine"], "threads": f["threads"], "model": f["cell"]["model"],
                  "sparsity": f["cell"]["sparsity"], "batch_size": f["batch_size"]}  # fmt: skip
        arms = f["arms"] or {"": {"status": f["status"], "reason": f["reason"]}}
        for name, one in arms.items():
            numbers = {k: one.get(k) for k in ARM_FIELDS}
            overall = {k: f[k] for k in _OVERALL if k != "relative_error"} if name == f["backend"] else {}
            table.append({**labels, "arm": name, "baseline": f["baseline"], **numbers, **overall})
    return pd.DataFrame(table)


def network_tables(runs: Sequence[Run]) -> dict[Key, pd.DataFrame]:
    """{(machine, threads): a row per network, sparsity and batch size, a column per arm}."""
    return {key: _table(rows) for key, rows in apart(network_rows(runs)).items()}


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    present = {name for f in rows for name in (f["arms"] or {})}
    others = sorted(present - {*_ARMS, *_OURS})
    arms = [name for name in (*_ARMS, *others, *_OURS) if name in present]
    return pd.DataFrame([_row(f, arms) for f in rows])


def _row(f: dict[str, Any], arms: Sequence[str]) -> dict[str, str]:
    labels = {
        "model": f["cell"]["model"],
        "sparsity": f"{100 * f['cell']['sparsity']:g} %",
        "batch": str(f["batch_size"]),
    }
    if f["status"] != "ok":
        failed = cell_text(f"{f['status']}: {f['reason']}")
        return {**labels, "speed-up": failed, "over": "–", **dict.fromkeys((f"{a} ms" for a in arms), "–")}
    speed = speedup_text(f["speedup"], f["speedup_low"], f["speedup_high"], f["verdict"])
    cells = {f"{name} ms": _arm(f["arms"].get(name), f["blocks"]) for name in arms}
    return {**labels, "speed-up": speed, "over": f["baseline"], **cells}


def _arm(one: dict[str, Any] | None, blocks: int) -> str:
    if one is None:
        return "–"
    if one["status"] != "ok":
        return cell_text(f"{one['status']}: {one['reason']}")
    return ("~" if one["blocks"] < blocks else "") + f"{1000 * one['seconds']:.3g}"
