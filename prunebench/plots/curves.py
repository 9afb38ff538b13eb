"""Schedule curves: how much of the weights each built-in schedule has removed at which progress; needs no runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from prunebench.plots import style
from prunebench.plots.plot import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPARSITY = 0.9
STEPS = 50
_FOOTER = (
    "sparsity(t) = share(t) × final sparsity; geometric removes the same fraction of what is left at every step. "
    "one_shot is at its final sparsity from the start."
)


def plots() -> Iterator[Plot]:
    """The one plot there is, of the schedules that come with the library."""
    from prunebench import schedules

    rows = [
        {"schedule": name, "progress": n / STEPS, "sparsity": SPARSITY * schedules.share(name, n / STEPS, SPARSITY)}
        for name in style.ORDER["schedule"].split()
        for n in range(STEPS + 1)
    ]
    yield Plot("schedules", f"Schedules on the way to {100 * SPARSITY:g} % sparsity", pd.DataFrame(rows), draw)


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """A line per schedule, its name at its own colour in the legend."""
    from matplotlib.ticker import FuncFormatter

    names = style.in_order("schedule", list(numbers["schedule"]))
    looks = style.looks("schedule", names)
    entries = [style.entry(name, **looks[name].line(), markersize=7) for name in names]
    labels = ("progress of fine-tuning t", "sparsity reached")
    made = style.sheet(1, 1, (6.0, 4.0), title, _FOOTER, entries, labels)
    ax = made.panels[0][0]
    for place, name in enumerate(names):
        own = numbers[numbers["schedule"] == name]
        ax.plot(own["progress"], own["sparsity"], **looks[name].line(), markevery=(2 * place % 10, 10), label=name,
                gid=name)  # fmt: skip
    ax.set_ylim(0, None)
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    return made.figure
