"""The grid's tables from saved runs alone: the same runs give the same bytes. Nothing here trains or times."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from prunebench.cell import NONE
from prunebench.controls import copied
from prunebench.errors import UsageError
from prunebench.facts import FIELDS, SAMPLES, TEXTS
from prunebench.runs import Run
from prunebench.tables.groups import Groups
from prunebench.tables.rendering import FORMATS, render

__all__ = [
    "FORMATS",
    "backends_of",
    "bytes_table",
    "detail",
    "details_of",
    "frame",
    "labels_of",
    "main_table",
    "render",
]

_CELL = ["dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule", "sparsity"]
_GROUP = ["machine", "threads", *_CELL, "batch_size"]
_NUMBERS = [f for f in FIELDS if f not in TEXTS]
Row = Mapping[str, Any]
_DECIDED = ("faster", "slower")
BACKENDS_APART = 0.0005  # accuracies of one checkpoint through two backends are called different beyond 0.05 points


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per case; where runs on one machine measured the same case again, the latest counts."""
    return _remembered(runs, "frame", lambda: _frame(runs))


def details_of(runs: Sequence[Run]) -> pd.DataFrame:
    """`detail` of the runs' frame."""
    return _remembered(runs, "detail", lambda: detail(frame(runs)))


# A command asks for the same runs' frame half a dozen times, with others in between: those shown and all there are.
_made: list[tuple[list[Run], dict[str, pd.DataFrame]]] = []


def _remembered(runs: Sequence[Run], what: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A copy of what was made of the very same runs before, else of what is made now."""
    same = (m for known, m in _made if len(known) == len(runs) and all(map(operator.is_, known, runs)))
    made = next(same, None)
    if made is None:
        made = {}
        _made[:] = [*_made[-1:], (list(runs), made)]
    if what not in made:
        made[what] = make()
    return made[what].copy()


def _frame(runs: Sequence[Run]) -> pd.DataFrame:
    columns = _columns(runs)
    if not columns["machine"]:
        raise UsageError("no saved run holds a result yet; run: pytest benchmarks --benchmark-save=NAME")
    table = pd.DataFrame(columns).sort_values(["datetime", "run"], kind="stable")
    table = table.drop_duplicates(["machine", "threads", "identity", "backend", "batch_size"], keep="last")
    table[_NUMBERS] = table[_NUMBERS].apply(pd.to_numeric)
    return table


def _columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """{column: a value per case}; facts that an older run didn't know are null."""
    facts = [one for run in runs for one in run.facts]
    cells = [one["cell"] for one in facts]
    names = dict.fromkeys([*FIELDS, *(k for keys in dict.fromkeys(map(tuple, facts)) for k in keys)])
    recipes: dict[Any, str] = {}
    return {
        **{name: [one.get(name) for one in facts] for name in names if name not in ("cell", "schema", *SAMPLES)},
        **{name: [cell[name] for cell in cells] for name in (*_CELL, "seed") if name != "recipe"},
        "identity": (identities := [_identity(cell, recipes) for cell in cells]),
        "recipe": _recipe_names(cells, identities),
        "machine": [run.machine.get("id", "unknown") for run in runs for _ in run.facts],
        "run": [run.name for run in runs for _ in run.facts],
        "datetime": [run.datetime for run in runs for _ in run.facts],
    }


def _recipe_names(cells: Sequence[Mapping[str, Any]], identities: Sequence[str]) -> list[str]:
    """The recipes' names; where several recipes share one, with a digest of each: their seeds are no repetitions."""
    texts = [one[one.rindex(', "recipe": ') :] for one in identities]
    names = [str(cell["recipe"]["name"]) for cell in cells]
    known: dict[str, set[str]] = {}
    for name, text in set(zip(names, texts, strict=True)):
        known.setdefault(name, set()).add(text)
    told = {
        (name, text): f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:6]}" if len(found) > 1 else name
        for name, found in known.items() for text in found
    }  # fmt: skip
    return [told[key] for key in zip(names, texts, strict=True)]


def _identity(cell: Mapping[str, Any], recipes: dict[Any, str]) -> str:
    """A cell as JSON; `recipes` remembers the longest part of it."""
    own = cell["recipe"]
    key = (*own, *map(repr, own.values()))  # as values 1, 1.0 and true would be equal
    if key not in recipes:
        recipes[key] = json.dumps(own, sort_keys=True)
    rest = {name: value for name, value in cell.items() if name != "recipe"}
    return json.dumps(rest, sort_keys=True)[:-1] + f', "recipe": {recipes[key]}}}'


def detail(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, backend and batch size over its seeds: n, means, sample deviations, the shared verdict.

    Speed-ups and their interval ends are geometric means over seeds; a verdict stands where all seeds agree.
    `accuracy_apart`: the mean over seeds of the accuracy minus that of the same seed through its first backend.
    """
    groups = Groups(table, [*_GROUP, "backend"])
    ok = (table["status"] == "ok").to_numpy()
    facts: dict[str, Any] = {
        "n": groups.sizes(ok), "accuracy_std": groups.deviations(table["accuracy"], ok),
        "accuracy_apart": groups.means(_apart(table, ok), ok),
        "status": groups.shared(table["status"]),
        **{name: groups.shared(table[name], ok) for name in ("verdict", "baseline", "collapse", "not_pruned")},
        "cases": groups.sizes(),
    }  # fmt: skip
    for name in _NUMBERS:
        if name.startswith("speedup"):
            facts[name] = np.exp(groups.means(np.log(table[name].astype(float)), ok))
        else:
            facts[name] = groups.means(table[name], ok)
    return _sorted(groups.keys.assign(**facts))


def _apart(table: pd.DataFrame, ok: np.ndarray) -> pd.Series:
    """Each accuracy minus that of the same checkpoint through its first backend: other seeds are no other backend."""
    place = {name: n for n, name in enumerate(_backends_in_order(table["backend"]))}
    order = np.argsort(table["backend"].map(place).to_numpy(), kind="stable")
    accuracy = table["accuracy"].astype(float).where(ok).iloc[order]
    keys = [table[key].iloc[order] for key in ("machine", "threads", "identity", "batch_size")]
    return (accuracy - accuracy.groupby(keys, sort=False).transform("first")).reindex(table.index)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    # A twin stands right below the cell whose proportions it copies, among the rows of that cell's method.
    pairs = {scope: copied(scope) for scope in table["scope"].unique()}
    criteria, scopes = list(table["criterion"]), list(table["scope"])
    own = [pairs[scope] or (criterion, scope) for criterion, scope in zip(criteria, scopes, strict=True)]
    keys = {
        "_pruned": table["criterion"] != NONE,
        "_criterion": [criterion for criterion, _ in own],
        "_scope": [scope for _, scope in own],
        "_twin": [c if pairs[scope] else "" for c, scope in zip(criteria, scopes, strict=True)],
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
    for group in _together(mine, [*_CELL, "batch_size"]):
        by_backend = {str(row["backend"]): row for row in group}
        present = [by_backend[b] for b in backends if b in by_backend]
        first = _standing(present)
        facts = {"accuracy %": _accuracy(first, present), "nonzeros": _nonzeros(first), "bytes on disk": _disk(first),
                 "over": _over(present)}  # fmt: skip
        rows.append({**labels_of(first), **facts, **{b: _speed(by_backend.get(b), first["n"]) for b in backends}})
    return pd.DataFrame(rows)


def _standing(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Which of a cell's backends, in the order of their columns, speaks for it: the first of those with most seeds."""
    return max(rows, key=lambda row: row["n"])


def _together(table: pd.DataFrame, keys: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The rows by equal keys, as plain values: a Series per row would cost more than all that is done with it."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in cast("list[dict[str, Any]]", table.to_dict("records")):
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.values())


def bytes_table(details: pd.DataFrame, machine: str, threads: int) -> pd.DataFrame:
    """Bytes of weights: on disk, dense and compressed, and in memory per backend; one row per cell."""
    mine = details[(details["machine"] == machine) & (details["threads"] == threads) & (details["n"] > 0)]
    backends = backends_of(mine)
    resident = mine.groupby([*_CELL, "backend"], sort=False)["resident_bytes"].mean().to_dict()
    rows = []
    place = {name: n for n, name in enumerate(backends)}
    for group in _together(mine, _CELL):
        first = _standing(sorted(group, key=lambda row: (place[row["backend"]], row["batch_size"])))
        cell = tuple(first[key] for key in _CELL)
        ratio = first["parameters"] / (first["parameters"] - first["prunable"] + first["nonzeros"])
        labels = {k: v for k, v in labels_of(first).items() if k != "batch"}
        disk = {
            "parameters": f"{ratio:.1f}× fewer",
            "dense file": _kb(first["dense_disk_bytes"]),
            "bitmask file": _disk(first),
        }
        rows.append({**labels, **disk, **{f"{b} in memory": _kb(resident.get((*cell, b))) for b in backends}})
    return pd.DataFrame(rows)


def backends_of(details: pd.DataFrame) -> list[str]:
    """The backends measured, in the order of their columns."""
    return _backends_in_order(details["backend"])


def _backends_in_order(names: Iterable[str]) -> list[str]:
    found = set(names)
    known = [b for b in ("dense", "masked", "scipy_csr", "csr") if b in found]
    return known + sorted(found - set(known))


def _kb(count: float | None) -> str:
    return "–" if count is None or np.isnan(count) else f"{count / 1000:,.1f} kB"


def labels_of(row: Row) -> dict[str, str]:
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


def _accuracy(row: Row, others: Sequence[Row]) -> str:
    if row["n"] == 0:
        return str(row["status"])
    spread = f" ± {100 * row['accuracy_std']:.2f}" if row["n"] > 1 else ""
    lost = "" if row["status"] == "ok" else f" of {row['cases']}, {row['status']}"
    # A backend that computes something else must not hide behind the first one's accuracy.
    apart = [f", {o['backend']} {100 * o['accuracy']:.2f}" for o in others
             if o["n"] > 0 and abs(o["accuracy_apart"] - row["accuracy_apart"]) > BACKENDS_APART]  # fmt: skip
    return f"{100 * row['accuracy']:.2f}{spread} (n={row['n']}{lost}){''.join(apart)}"


def _nonzeros(row: Row) -> str:
    if row["n"] == 0:
        return "–"
    noted = [("layer collapse", row["collapse"]), ("some layers left dense", row["not_pruned"])]
    said = "; ".join(words for words, what in noted if what)
    return f"{row['nonzeros']:,.0f} of {row['prunable']:,.0f}" + (f" ({said})" if said else "")


def _disk(row: Row) -> str:
    if row["n"] == 0:
        return "–"
    return f"{_kb(row['disk_bytes'])} ({row['dense_disk_bytes'] / row['disk_bytes']:.1f}× smaller)"


def _over(rows: Sequence[Row]) -> str:
    """The dense ways that the speed-ups of a row are against."""
    names = {name for row in rows if row["n"] > 0 for name in str(row["baseline"]).removeprefix("mixed: ").split()}
    return " ".join(sorted(names)) or "–"


def _speed(row: Row | None, usual: int) -> str:
    """`0.412 ms, 2.31× [2.25, 2.40]`: latency per batch, speed-up over the fastest dense way, its 95 % interval.

    n is told where it isn't the row's usual one.
    """
    if row is None:
        return "–"
    if row["n"] == 0:
        return str(row["status"])
    doubt = "" if row["verdict"] in _DECIDED else f" {row['verdict']}"
    if row["status"] != "ok":
        doubt += f" (n={row['n']} of {row['cases']})"
    elif row["n"] != usual:
        doubt += f" (n={row['n']})"
    ends = f"[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
    return f"{1000 * row['latency_seconds']:.3g} ms, {row['speedup']:.2f}× {ends}{doubt}"
