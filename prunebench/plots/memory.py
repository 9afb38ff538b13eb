"""Accuracy against bytes: of the checkpoint on disk per criterion, and of the weights in memory per backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.cell import NONE
from prunebench.plots import axes, fronts, style
from prunebench.plots.plot import Plot, file_name
from prunebench.plots.points import PARENT, accuracies, front, interval, method_text, over_seeds
from prunebench.tables.grid import BACKENDS_APART, detail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOOTER = (
    "A point: one method at one sparsity, mean over seeds (n = {n}); upright bars: 95 % t interval. Disk: the "
    "checkpoint as bitmask and float32 values. Memory: the weights that a backend keeps, activations not "
    "counted. Front: by point estimates, bytes within 1 % and accuracies within 0.05 points taken as equal; with many "
    "methods its best is partly luck."
)
DISK, MEMORY = "file on disk, by criterion", "weights in memory, by backend"


def plots(table: pd.DataFrame) -> Iterator[Plot]:
    """One plot per network with a panel for the disk and one for the memory; machines may mix, as no time is in it."""
    disk = over_seeds(accuracies(fronts.own_scope(table)))
    memory = _resident(fronts.own_scope(table))
    for key, rows in disk.groupby(PARENT):
        same = (memory[PARENT] == pd.Series(dict(zip(PARENT, key, strict=True)))).all(axis=1)
        panels = [_numbers(rows.assign(series=rows["criterion"].replace(NONE, "unpruned"), x=rows["disk_bytes"]), DISK),
                  _numbers(memory[same], MEMORY)]  # fmt: skip
        dataset, model, recipe = key
        numbers = pd.concat(panels, ignore_index=True)
        name = file_name("pareto_bytes", model, dataset, recipe)
        yield Plot(name, f"Accuracy against bytes: {model} on {dataset} (recipe {recipe})", numbers, draw)


def _resident(table: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and backend. Machines and batch sizes share a backend's bytes, so the last measured count."""
    last = table.sort_values(["datetime", "run"], kind="stable").drop_duplicates(["identity", "backend"], keep="last")
    rows = detail(last.assign(machine="", threads=0, batch_size=0))
    ends = [interval(r.accuracy, r.accuracy_std, r.n) for r in rows.itertuples()]
    return rows.assign(series=rows["backend"], x=rows["resident_bytes"], low=[a for a, _ in ends],
                       high=[b for _, b in ends], lost=rows["status"])  # fmt: skip


def _numbers(rows: pd.DataFrame, panel: str) -> pd.DataFrame:
    rows = rows.reset_index(drop=True)
    on_front = front([1 / x for x in rows["x"]], list(rows["accuracy"]), list(rows["n"] > 0), 0.01, BACKENDS_APART)
    made = rows.assign(
        panel=panel,
        method=[method_text(row) for row in rows.to_dict("records")],
        number=fronts.numbered(on_front, list(rows["x"])),
        accuracy_low=rows["low"], accuracy_high=rows["high"], low=None, high=None, verdict=None, status=rows["lost"],
    )  # fmt: skip
    return made[fronts.NUMBERS]


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Both panels, each with the key of its front below."""
    entries: list[Any] = []
    every: dict[str, dict[str, style.Look]] = {}
    for panel, axis in ((DISK, "criterion"), (MEMORY, "backend")):
        own = numbers[numbers["panel"] == panel]
        looks = style.looks(axis, [n for n in style.in_order(axis, list(own["series"])) if n != "unpruned"])
        entries += fronts.entries({f"{panel.split()[-1]}: {name}": one for name, one in looks.items()})
        every[panel] = {**looks, "unpruned": style.Look(style.GREY, fronts.UNPRUNED, style.DASHES[0])}
    entries += fronts.common(numbers, doubtful=False)
    footer = _FOOTER.format(n=style.span(numbers.loc[numbers["n"] > 0, "n"]))
    made = fronts.make(numbers, title, footer, entries, "bytes (log scale)")
    fronts.scale(made.panels, axes.BytesForm())
    for ax, own in made.panels:
        fronts.scatter(ax, own, every[own["panel"].iloc[0]], smaller_is_better=True)
    return made.figure
