"""Scales that several plots share: weights kept, accuracy, speed-up, bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from prunebench.plots.style import BLACK, entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPARSITY = "sparsity (log scale of the weights kept)"
ACCURACY = "test accuracy (log scale of the error)"
SPEEDUP = "measured speed-up (log scale)"
_FIRST = (90, 99, 50, 95, 80, 98, 99.5, 99.9, 70, 0, 60, 20)  # the labels to keep where not all fit
_MANTISSAS = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)  # of round ticks on a log axis, from sparse to dense
FLOOR = 0.01  # percent: an accuracy of 100 % is drawn as if it were this far from it


def sparsity_axis(ax: Axes, kept: Iterable[float], sparsities: Iterable[float], inches: float = 4.0) -> None:
    """The x axis: share of weights kept, log, falling to the right; labelled by the sparsities that were asked for."""
    values = [k for k in kept if k > 0] or [1.0]
    low, high = math.log(min(values)), math.log(max(values))
    room = max(0.06 * (high - low), 0.05)
    low, high = low - room, high + room
    ax.set_xscale("log")
    ax.set_xlim(math.exp(high), math.exp(low))
    asked = {round(100 * s, 6) for s in sparsities}
    near = 0.46 / inches * (high - low)  # not half an inch holds a label
    shown: list[float] = []
    for percent in [p for p in _FIRST if p in asked] + sorted(asked - set(_FIRST)):
        place = math.log(1 - percent / 100)
        if all(abs(place - math.log(1 - other / 100)) >= near for other in shown):
            shown.append(percent)
    _ticks(ax.xaxis, [1 - p / 100 for p in sorted(shown)], [f"{p:g} %" for p in sorted(shown)])


def error(accuracy: float) -> float:
    """What stands on an accuracy axis: percent of the test split that is wrong, never 0; NaN stays."""
    return max(100 * (1 - accuracy), FLOOR) if accuracy == accuracy else math.nan


def accuracy_axis(ax: Axes, accuracies: Iterable[float], strip: bool = False) -> None:
    """The y axis: error, log, falling upwards, labelled as accuracy; strip: leave room for marks at the bottom."""
    errors = [error(a) for a in accuracies if a == a] or [1.0, 10.0]
    low, high = math.log(min(errors)), math.log(max(errors))
    room = max(0.07 * (high - low), 0.06)
    low, high = low - room, min(high + room, math.log(100))
    if strip:
        high += 0.1 * (high - low)
    ax.set_yscale("log")
    ax.set_ylim(math.exp(high), math.exp(low))
    # Where the axis reaches 0 %, 10 % tells more: chance, with ten classes.
    ticks = [min(t, 90.0) for t in _round(math.exp(low), math.exp(high))]
    _ticks(ax.yaxis, ticks, [f"{100 - e:g} %" for e in ticks])


def _round(low: float, high: float) -> list[float]:
    """Round ticks between two ends of a log axis: the fewest kinds that give four, else even steps."""
    for mantissas in _MANTISSAS:
        ticks = [m * 10.0**n for n in range(-5, 12) for m in mantissas if low <= m * 10.0**n <= high]
        if len(ticks) >= 4:
            return [round(t, 9) for t in ticks]
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 2 or m == 1)
    return [round(n * step, 9) for n in range(math.ceil(low / step), int(high / step) + 1)][:9]


def ratio_axis(axis: Any, values: Iterable[float], form: str = "{:g}×") -> None:
    """A log axis of ratios or counts, with round ticks."""
    found = [v for v in values if v == v and v > 0] or [1.0]
    low, high = math.log(min(found)), math.log(max(found))
    room = max(0.06 * (high - low), 0.08)
    low, high = low - room, high + room
    ticks = _round(math.exp(low), math.exp(high))
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(math.exp(low), math.exp(high))
    _ticks(axis, ticks, [form.format(t) for t in ticks])


def bytes_text(count: float) -> str:
    """`235 kB`, `1.7 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B"


class BytesForm:
    """Stands in for a format string: bytes_text of the value."""

    def format(self, count: float) -> str:
        return bytes_text(count)


def _ticks(axis: Any, places: Sequence[float], labels: Sequence[str]) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())


def bars(ax: Axes, x: Sequence[Iterable[float]], y: Sequence[Iterable[float]], **look: Any) -> None:
    """Straight strokes from (x[0], y[0]) to (x[1], y[1]), those with a NaN left out: one path, for small SVGs."""
    ends = [e for e in zip(x[0], y[0], x[1], y[1], strict=True) if all(v == v for v in e)]
    across = [v for x0, _, x1, _ in ends for v in (x0, x1, math.nan)]
    up = [v for _, y0, _, y1 in ends for v in (y0, y1, math.nan)]
    if ends:
        ax.plot(across, up, marker="none", linestyle="-", solid_capstyle="butt", **look)


STRIP = {"failed": "X", "missing": "d"}  # marks at a panel's bottom edge


def strip_marks(ax: Axes, marks: Sequence[tuple[float, str, str, str]]) -> None:
    """Marks (x, what, colour, count) at the bottom edge for what has no accuracy, in levels where they would meet."""
    place = ax.get_xaxis_transform()
    taken: list[tuple[float, float, int]] = []  # from, to, in pixels, and the level
    for x, what, colour, count in marks:
        along = ax.transData.transform((x, 1))[0]
        side = -1 if ax.transAxes.inverted().transform((along, 0))[0] > 0.7 else 1
        begin, end = sorted((along - 10 * side, along + (66 if count else 10) * side))
        level = 0
        while any(used == level and begin < other_end and end > other for other, other_end, used in taken):
            level += 1
        taken.append((begin, end, level))
        y = 0.03 + 0.06 * level
        ax.plot([x], [y], marker=STRIP[what], color=colour, markersize=8, transform=place, clip_on=False,
                linestyle="none", markeredgecolor=colour, gid=what, zorder=6,
                markerfacecolor=colour if what == "failed" else "none")  # fmt: skip
        ax.annotate(count, (x, y), xycoords=place, xytext=(6 * side, 0), textcoords="offset points", va="center",
                    ha="left" if side > 0 else "right", fontsize=8.5, color=colour)  # fmt: skip


def strip_entries(kinds: Iterable[str]) -> list[Any]:
    """Legend entries of the marks in use."""
    words = {"failed": "seeds failed or diverged", "missing": "seeds not measured"}
    faces = {"failed": BLACK, "missing": "none"}
    return [entry(words[k], marker=STRIP[k], color=BLACK, markerfacecolor=faces[k], linestyle="none", markersize=8)
            for k in STRIP if k in set(kinds)]  # fmt: skip
