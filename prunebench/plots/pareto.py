"""Accuracy against measured speed-up: every cell on every backend, and the front that no other one beats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from prunebench.plots import axes, fronts, style
from prunebench.plots.machines import words
from prunebench.plots.plot import Plot, file_name
from prunebench.plots.points import PARENT, front, method_text, speeds
from prunebench.runs import Run
from prunebench.tables.grid import BACKENDS_APART
from prunebench.timing import PRECISION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOOTER = (
    "A point: one method at one sparsity on one backend, means over seeds (n = {n}). Bars: the 95 % bootstrap interval "
    "of the speed-up over the faster of torch's two layouts, and the t interval of the accuracy. Front: by point "
    "estimates, without unstable timings, speed-ups within 3 % and accuracies within 0.05 points taken as equal; with "
    "many methods its best is partly luck. "
)


def plots(table: pd.DataFrame, runs: Sequence[Run]) -> Iterator[Plot]:
    """One plot per network, machine and thread count; a panel per batch size."""
    about = words(runs)
    for key, rows in fronts.own_scope(speeds(table)).groupby(["machine", "threads", *PARENT]):
        machine, threads, dataset, model, recipe = key
        panels = [_numbers(own.reset_index(drop=True), f"batch {batch}") for batch, own in rows.groupby("batch_size")]
        numbers = pd.concat(panels, ignore_index=True)
        numbers = numbers.assign(machine=machine, threads=threads, on=about[machine])
        title = f"Accuracy against speed-up: {model} on {dataset} (recipe {recipe}, {style.threads_text(threads)})"
        name = file_name("pareto_speedup", model, dataset, recipe, machine, f"t{threads}")
        yield Plot(name, title, numbers, draw)


def _numbers(rows: pd.DataFrame, panel: str) -> pd.DataFrame:
    stable = [row.n > 0 and "unstable" not in row.verdict for row in rows.itertuples()]
    on_front = front(list(rows["speedup"]), list(rows["accuracy"]), stable, PRECISION, BACKENDS_APART)
    made = rows.assign(
        panel=panel,
        series=rows["backend"],
        method=[method_text(row) for row in rows.to_dict("records")],
        x=rows["speedup"],
        low=rows["speedup_low"],
        high=rows["speedup_high"],
        number=fronts.numbered(on_front, list(rows["speedup"])),
    )
    return made[fronts.NUMBERS]


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Panels side by side, each with the key of its front below."""
    counts = numbers.loc[numbers["n"] > 0, "n"]
    first = numbers.iloc[0]
    footer = _FOOTER.format(n=style.span(counts)) + style.timed_on(first["machine"], first["threads"], first["on"])
    looks = style.looks("backend", style.in_order("backend", list(numbers["series"])))
    doubtful = any(style.hollow(str(v)) for v in numbers["verdict"])
    entries = [*fronts.entries(looks), *fronts.common(numbers, doubtful)]
    made = fronts.make(numbers, title, footer, entries, axes.SPEEDUP)
    fronts.scale(made.panels, "{:g}×")
    for ax, own in made.panels:
        fronts.scatter(ax, own, looks)
        ax.axvline(1.0, color=style.BLACK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    return made.figure
