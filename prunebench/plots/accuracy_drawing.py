"""Drawing accuracy against sparsity, from its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.cell import NONE
from prunebench.plots import axes, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEANS = "Means over seeds (n = {n}) with 95 % t intervals, every seed a faint dot; dashed line and band: the unpruned "
_SINGLE = "One seed, so without intervals; dashed line: the unpruned "
_FOOTER = (
    "network. The "
    "horizontal axis is the share of weights that is left, as counted. Methods are moved apart sideways a little. "
    "Test split, read once."
)
_NAMES = {"itself": "the criterion itself", "random": "random, same proportions", "l1": "l1, same proportions"}


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """One panel per value of `panel`, side by side in reading order."""
    view = str(numbers["view"].iloc[0])
    pruned, control = numbers[numbers["what"] != "control"], numbers[numbers["what"] == "control"]
    panels = list(dict.fromkeys(pruned["panel"].fillna("")))
    axis = "control" if view == "control" else view
    names = style.in_order(axis, [str(name) for name in pruned["series"]])
    looks = style.looks(axis, names)
    columns = _columns(panels)
    strip = bool(pruned["what"].isin(["failed", "missing"]).any())
    size = (6.0, 3.9) if len(panels) == 1 else (3.0, 2.4) if columns > 2 else (4.2, 3.0)
    made = style.sheet(math.ceil(len(panels) / columns), columns, size, title, _footer(numbers),
                       _entries(view, names, looks, numbers), (axes.SPARSITY, axes.ACCURACY))  # fmt: skip
    first = made.panels[0][0]
    axes.sparsity_axis(first, pruned["kept"].dropna(), pruned["sparsity"], size[0])
    values = [*numbers["accuracy"].dropna(), *_within(numbers, "low"), *_within(numbers, "high")]
    axes.accuracy_axis(first, values, strip)
    for panel, ax in zip(panels, style.filled(made, len(panels)), strict=True):
        _panel(ax, pruned[pruned["panel"].fillna("") == panel], control, names, looks)
        ax.set_title(panel, loc="left")
    return made.figure


def _columns(panels: list[str]) -> int:
    """As many as the last part of the labels has values, so that a column holds one of them; at most 4."""
    last = {label.rpartition(", ")[2] for label in panels}
    if len(panels) % len(last) == 0 and len(last) <= 4 and len(last) > 1:
        return len(last)
    return min(len(panels), 4 if len(panels) != 3 else 3)


def _within(numbers: pd.DataFrame, end: str) -> list[float]:
    """Interval ends that deserve room: one from two seeds can reach far out of anything measured."""
    chosen = numbers[numbers[end].notna() & (numbers["n"] > 2)]
    return [min(max(v, 0.0), 1.0) for v in chosen[end] if v < 1]


def _panel(ax: Axes, own: pd.DataFrame, control: pd.DataFrame, names: list[str], looks: dict[str, style.Look]) -> None:
    for row in control.itertuples():
        ax.axhline(
            axes.error(row.accuracy), color=style.BLACK, linestyle=(0, (6, 3)), linewidth=1.1, zorder=1.5, gid=NONE
        )
        if row.low == row.low:
            ax.axhspan(axes.error(row.high), axes.error(row.low), color=style.BLACK, alpha=0.1, linewidth=0, zorder=1)
    marks: list[tuple[float, str, str, str]] = []
    present = [name for name in names if (own["series"] == name).any()]
    right, left = ax.get_xlim()
    step = -min(0.013, 0.07 / len(present)) * math.log(left / right)  # the axis falls to the right
    for place, name in enumerate(present):
        look, mine = looks[name], own[own["series"] == name]
        aside = math.exp(step * (place - (len(present) - 1) / 2))
        seeds, means = mine[mine["what"] == "seed"], mine[mine["what"] == "mean"].sort_values("sparsity")
        ax.plot(seeds["kept"] / aside, [axes.error(a) for a in seeds["accuracy"]], linestyle="none", marker=".",
                color=look.colour, alpha=0.45, markersize=6, markeredgewidth=0, zorder=2,
                gid=f"seeds {name}")  # fmt: skip
        lost = mine[mine["what"].isin(["failed", "missing"])]
        gone = lost[(lost["what"] == "failed") & (lost["n"] == 0)]
        _line(ax, means, sorted(set(gone["sparsity"])), look, name, aside)
        for row in lost.itertuples():
            count = f"{row.cases - row.n:.0f} of {row.cases:.0f}" if row.n else ""
            marks.append((row.kept / aside, str(row.what), look.colour, count))
    axes.strip_marks(ax, marks)


def _line(ax: Axes, means: pd.DataFrame, gaps: list[float], look: style.Look, name: str, aside: float) -> None:
    """Means with their intervals; the line breaks where every seed of a sparsity between failed.

    It does not where a sparsity was not measured: other methods' choice of sparsities says nothing of this one.
    """
    points: list[tuple[float, float]] = []
    before = 0.0
    for row in means.itertuples():
        if any(before < gap < row.sparsity for gap in gaps):
            points.append((math.nan, math.nan))
        points.append((row.kept / aside, axes.error(row.accuracy)))
        before = row.sparsity
    ax.plot([x for x, _ in points], [y for _, y in points], **look.line(), markeredgecolor="white",
            markeredgewidth=0.6, zorder=4 if name != "random" else 3,
            gid=f"means {name}")  # fmt: skip
    ends = [[axes.error(v) for v in means[end]] for end in ("high", "low")]
    axes.bars(ax, [means["kept"] / aside] * 2, ends, color=look.colour, linewidth=1.3, alpha=0.8, zorder=3,
              gid=f"intervals {name}")  # fmt: skip


def _entries(view: str, names: list[str], looks: dict[str, style.Look], numbers: pd.DataFrame) -> list[Any]:
    words = _NAMES if view == "control" else {}
    found = [style.entry(words.get(name, name), **looks[name].line(), markersize=7) for name in names]
    if (numbers["what"] == "control").any():
        found.append(style.entry("unpruned", color=style.BLACK, linestyle=(0, (6, 3)), linewidth=1.1))
    return found + axes.strip_entries(numbers["what"])


def _footer(numbers: pd.DataFrame) -> str:
    counts = numbers.loc[numbers["what"].isin(["mean", "control"]), "n"]
    if counts.max() == 1:
        return _SINGLE + _FOOTER
    return _MEANS.format(n=style.span(counts)) + _FOOTER
