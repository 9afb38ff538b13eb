"""Accuracy against sparsity: a panel per way to prune, a line per method, every seed a dot, the unpruned as a band.

The same cells are drawn once per question: which criterion (`by-criterion`), and, where there is more than one to
compare, which scope, schedule or granularity, and whether a criterion beats random and magnitude with its own
proportions (`by-control`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.cell import NONE
from prunebench.controls import copied
from prunebench.plots.accuracy_drawing import draw
from prunebench.plots.plot import Plot, file_name
from prunebench.plots.points import PARENT, accuracies, ordered, over_seeds

if TYPE_CHECKING:
    from collections.abc import Hashable

# What a plot compares -> what makes its rows of panels, and what its columns.
VIEWS = {
    "criterion": (("granularity", "scope"), ("schedule",)),
    "scope": (("granularity", "schedule"), ("criterion",)),
    "schedule": (("granularity", "scope"), ("criterion",)),
    "granularity": (("scope", "schedule"), ("criterion",)),
    "control": (("granularity", "scope", "schedule"), ("criterion",)),
}
_PANELS, _LINES = 12, 8  # on one image; what is beyond goes to the next
_NUMBERS = ["panel", "series", "sparsity", "what", "seed", "kept", "accuracy", "low", "high", "n", "cases", "lost"]


def plots(table: pd.DataFrame) -> Iterator[Plot]:
    """Every plot of accuracy against sparsity of a tables.frame."""
    for parent, rows in accuracies(table).groupby(PARENT):
        for view in VIEWS:
            compared = _compared(rows[rows["criterion"] != NONE], view)
            pages = [page for lines in _lines(compared, view) for page in _pages(lines, view)]
            for number, panels in enumerate(pages, 1):
                dataset, model, recipe = map(str, _key(parent))
                page = [f"part{number}"] if len(pages) > 1 else []
                name = file_name("accuracy_by_" + view, model, dataset, recipe, *page)
                common, numbers = _numbers(panels, rows[rows["criterion"] == NONE], view)
                title = f"Accuracy by {view}: {model} on {dataset} (recipe {recipe}{common})"
                yield Plot(name, title, numbers.assign(view=view), draw)


def _key(parent: Any) -> tuple[Hashable, ...]:
    return parent if isinstance(parent, tuple) else (parent,)


def _compared(rows: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows that a view shows, with `series`: the line they belong to."""
    pairs = [copied(scope) for scope in rows["scope"]]
    own = [pair is None for pair in pairs]
    if view != "control":
        kept = rows.loc[own]  # a list without a row chooses rows all the same
        return kept.assign(series=kept[view])
    # A twin stands in its original's panel, under the name of the criterion that chose the weights.
    criteria = [c if pair is None else pair[0] for c, pair in zip(rows["criterion"], pairs, strict=True)]
    scopes = [s if pair is None else pair[1] for s, pair in zip(rows["scope"], pairs, strict=True)]
    series = ["itself" if mine else c for mine, c in zip(own, rows["criterion"], strict=True)]
    return rows.assign(criterion=criteria, scope=scopes, series=series)


def _lines(rows: pd.DataFrame, view: str) -> list[pd.DataFrame]:
    """The rows, or where they make more lines than an eye can part, some of them at a time beside the two baselines."""
    names = ordered(view, rows["series"])
    if len(names) <= _LINES:
        return [rows]
    always = [name for name in ("l1", "random") if name in names]
    others, room = [name for name in names if name not in always], _LINES - len(always)
    chosen = [[*always, *others[n : n + room]] for n in range(0, len(others), room)]
    return [rows[rows["series"].isin(lines)] for lines in chosen]


Panel = tuple[dict[str, str], pd.DataFrame]  # what it holds fast, its rows


def _pages(rows: pd.DataFrame, view: str) -> list[list[Panel]]:
    """Panels in their order, a page at a time; panels with nothing to compare are left out, but for criteria."""
    if rows.empty:
        return []
    across, along = VIEWS[view]
    axes = [*across, *along]
    values = {axis: ordered(axis, rows[axis]) for axis in axes}
    found = [(dict(zip(axes, map(str, _key(key)), strict=True)), group) for key, group in rows.groupby(axes)]
    found.sort(key=lambda panel: [values[axis].index(panel[0][axis]) for axis in axes])
    kept = [p for p in found if view == "criterion" or p[1]["series"].nunique() > 1]
    per_page = max(_PANELS // max(_columns(kept, along[0]), 1), 1) * _columns(kept, along[0])
    return [kept[n : n + per_page] for n in range(0, len(kept), per_page)] if kept else []


def _columns(panels: Sequence[Panel], axis: str) -> int:
    return min(len({fixed[axis] for fixed, _ in panels}), 4)


def _numbers(panels: Sequence[Panel], controls: pd.DataFrame, view: str) -> tuple[str, pd.DataFrame]:
    """(what all panels have in common, what is drawn): a row per mean, seed, loss and gap, and the unpruned control."""
    axes = list(panels[0][0])
    common = [axis for axis in axes if len({fixed[axis] for fixed, _ in panels}) == 1]
    found: list[dict[str, Any]] = []
    for fixed, rows in panels:
        label = ", ".join(fixed[axis] for axis in axes if axis not in common)
        found += [{"panel": label, **row} for row in _of_panel(rows, view)]
    control = over_seeds(controls)
    for row in control.to_dict("records"):
        found.append({**row, "panel": "", "series": NONE, "what": "control"})
    shared = [panels[0][0][axis] for axis in common]
    return "".join(f", {text}" for text in shared), pd.DataFrame(found, columns=_NUMBERS)


def _of_panel(rows: pd.DataFrame, view: str) -> Iterator[dict[str, Any]]:
    sparsities = sorted(set(rows["sparsity"]))
    names = ordered("control" if view == "control" else view, rows["series"])
    every: dict[Any, dict[float, dict[Hashable, Any]]] = {}
    for row in over_seeds(rows, ["series"]).to_dict("records"):
        every.setdefault(row["series"], {})[row["sparsity"]] = row
    for name in names:
        own = rows[rows["series"] == name]
        means = every[name]
        most = max(int(row["cases"]) for row in means.values())
        for sparsity in sparsities:
            base = {"series": name, "sparsity": sparsity}
            row = means.get(sparsity)
            if row is None:
                yield {**base, "what": "missing", "kept": 1 - sparsity, "n": 0, "cases": most}
                continue
            if row["n"]:
                yield {**base, "what": "mean", **{k: row[k] for k in _NUMBERS[5:]}}
            if row["lost"]:
                yield {**base, "what": "failed", **{k: row[k] for k in ("kept", "n", "cases", "lost")}}
            elif row["cases"] < most:
                yield {**base, "what": "missing", "kept": row["kept"], "n": row["n"], "cases": most}
        for one in own[own["status"] == "ok"].sort_values(["sparsity", "seed"]).to_dict("records"):
            if not math.isnan(one["accuracy"]):
                yield {"series": name, "what": "seed", **{k: one[k] for k in ("sparsity", "seed", "kept", "accuracy")}}
