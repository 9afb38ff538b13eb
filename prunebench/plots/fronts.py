"""Clouds of cells with the front that no cell beats: shared by speed against accuracy and bytes against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.cell import NONE
from prunebench.controls import copied
from prunebench.plots import axes, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERS = ["panel", "series", "method", "sparsity", "x", "low", "high", "accuracy", "accuracy_low", "accuracy_high",
           "n", "cases", "verdict", "status", "number"]  # fmt: skip
UNPRUNED = "*"


def own_scope(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without controls that copy another row's proportions."""
    own = {scope: copied(scope) is None for scope in rows["scope"].unique()}
    return rows[[own[scope] for scope in rows["scope"]]]


def numbered(on_front: Sequence[bool], x: Sequence[float]) -> list[float]:
    """1, 2, … for the points on the front by falling accuracy, in the order of their x; NaN for the others."""
    places = sorted((n for n, yes in enumerate(on_front) if yes), key=lambda n: x[n])
    return [float(places.index(n) + 1) if yes else math.nan for n, yes in enumerate(on_front)]


def panels_of(numbers: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(numbers["panel"]))


@dataclass(frozen=True)
class Fronts:
    """A figure, and its panels with the rows that belong in each."""

    figure: Figure
    panels: list[tuple[Axes, pd.DataFrame]]


def make(numbers: pd.DataFrame, title: str, footer: str, entries: Sequence[Any], x_label: str) -> Fronts:
    """Panels side by side, and below each the key of its front."""
    panels = panels_of(numbers)
    keys = int(numbers["number"].max()) if numbers["number"].notna().any() else 1
    made = style.sheet(1, len(panels), (5.3, 4.2), title, footer + failures(numbers), entries,
                       (x_label, axes.ACCURACY), share=False, key_lines=keys)  # fmt: skip
    found = []
    for ax, key, panel in zip(made.panels[0], made.keys, panels, strict=True):
        own = numbers[numbers["panel"] == panel]
        ax.set_title(panel, loc="left")
        lines = [_text(row) for row in own[own["number"].notna()].sort_values("number").to_dict("records")]
        key.text(0, 1, "\n".join(lines) or "no cell can be on a front", va="top", fontsize=10, linespacing=1.25)
        found.append((ax, own))
    return Fronts(made.figure, found)


def _text(row: dict[Any, Any]) -> str:
    # A backend is named beside its method; a criterion stands in the method's own words.
    x = axes.bytes_text(row["x"]) if pd.isna(row["verdict"]) else f"{row['x']:.2f}×"
    what = row["method"] if row["series"] in row["method"].split() else f"{row['method']}, {row['series']}"
    return f"{int(row['number'])}  {what}: {x}, {100 * row['accuracy']:.2f} %"


def failures(numbers: pd.DataFrame) -> str:
    """Words for cells that have no place in the plane, so that none is dropped in silence."""
    lost = numbers[numbers["accuracy"].isna() | numbers["x"].isna()]
    some = numbers[numbers["accuracy"].notna() & (numbers["n"] < numbers["cases"])]
    texts = []
    if len(lost):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(lost["status"].value_counts().items()))
        texts.append(f" Without a place here: {kinds}; they stand in the CSV.")
    if len(some):
        texts.append(f" {len(some)} points lack seeds that failed.")
    return "".join(texts)


def scatter(ax: Axes, own: pd.DataFrame, looks: dict[str, style.Look], smaller_is_better: bool = False) -> None:
    """Points with their intervals, hollow where the timing is not to be relied on; stars for the unpruned."""
    for name, look in looks.items():
        mine = own[(own["series"] == name) & own["x"].notna() & own["accuracy"].notna()]
        for unpruned, doubt in ((False, False), (False, True), (True, False), (True, True)):
            chosen = mine[(mine["method"].str.startswith("unpruned") == unpruned) & (_doubtful(mine) == doubt)]
            if len(chosen):
                _points(ax, chosen, look, unpruned, doubt, f"{name} {NONE if unpruned else 'pruned'}")
    best = own[own["number"].notna()].sort_values("number")
    if len(best):
        _front(ax, best, smaller_is_better)


def _doubtful(rows: pd.DataFrame) -> pd.Series:
    return rows["verdict"].fillna("").map(style.hollow).astype(bool)


def _points(ax: Axes, rows: pd.DataFrame, look: style.Look, unpruned: bool, doubt: bool, gid: str) -> None:
    on_front = rows["number"].notna()
    y = [axes.error(a) for a in rows["accuracy"]]
    ax.plot(rows["x"], y, linestyle="none", marker=UNPRUNED if unpruned else look.marker, color=look.colour,
            markersize=12 if unpruned else 6, markerfacecolor="none" if doubt else look.colour, alpha=0.75,
            markeredgecolor=look.colour if doubt else "white",
            markeredgewidth=1.3 if doubt else 0.6, zorder=3, gid=gid)  # fmt: skip
    for strong, chosen in ((False, rows[~on_front]), (True, rows[on_front])):
        width, alpha = (1.4, 0.9) if strong else (0.8, 0.25)
        about = {"color": look.colour, "linewidth": width, "alpha": alpha, "zorder": 2}
        error = [[axes.error(a) for a in chosen[k]] for k in ("accuracy", "accuracy_high", "accuracy_low")]
        axes.bars(ax, [chosen["low"], chosen["high"]], [error[0]] * 2, **about, gid=f"{gid} sideways")
        axes.bars(ax, [chosen["x"]] * 2, error[1:], **about, gid=f"{gid} upright")


def _front(ax: Axes, best: pd.DataFrame, smaller_is_better: bool) -> None:
    """Steps along the front: what can be had at least; and each point's number, on the side where no point can be."""
    x, y = list(best["x"]), [axes.error(a) for a in best["accuracy"]]
    # Between two points the plane is reached by the worse accuracy of the one, at the other's speed or size.
    ax.step(
        x, y, where="post" if smaller_is_better else "pre", color=style.BLACK, linewidth=1.3, zorder=2.5, gid="front"
    )
    taken: list[Any] = []
    aside = -1 if smaller_is_better else 1
    for number, place in zip(best["number"], ax.transData.transform(list(zip(x, y, strict=True))), strict=True):
        at = [place[0] + aside * 9, place[1] + 5]
        while any(abs(at[0] - a) < 26 and abs(at[1] - b) < 19 for a, b in taken):
            at[0] += aside * 9
        taken.append(at)
        ax.annotate(f"{int(number)}", tuple(ax.transData.inverted().transform(at)), ha="left" if aside > 0 else "right",
                    va="bottom", fontsize=11, weight="bold", zorder=6, annotation_clip=False)  # fmt: skip


def scale(found: Sequence[tuple[Axes, pd.DataFrame]], x_form: Any) -> None:
    """An x axis of its own per panel, accuracy alike in all."""
    every = pd.concat([own for _, own in found])
    sure = every[every["n"] > 2]  # the interval of two seeds can reach far out of anything measured
    ends = [v for v in [*sure["accuracy_low"].dropna(), *sure["accuracy_high"].dropna()] if 0 < v < 1]
    for ax, own in found:
        axes.accuracy_axis(ax, [*ends, *every["accuracy"].dropna()])
        axes.ratio_axis(ax.xaxis, [*own["x"].dropna(), *own["low"].dropna(), *own["high"].dropna()], x_form)


def entries(looks: dict[str, style.Look]) -> list[Any]:
    """The legend's: a colour and marker per series."""
    return [style.entry(name, color=look.colour, marker=look.marker, linestyle="none", markersize=8)
            for name, look in looks.items()]  # fmt: skip


def common(numbers: pd.DataFrame, doubtful: bool) -> list[Any]:
    """And what a star, a hollow marker and the black line are."""
    made = []
    if (numbers["method"] == "unpruned").any():
        made.append(style.entry("unpruned", color=style.GREY, marker=UNPRUNED, linestyle="none", markersize=12))
    if doubtful:
        made.append(style.entry("unstable or inconclusive", color=style.GREY, marker="o", markerfacecolor="none",
                                linestyle="none", markersize=8))  # fmt: skip
    made.append(style.entry("front, numbered", color=style.BLACK, linewidth=1.3))
    return made
