"""Measured speed-up against sparsity, per backend, with the sparsity from which each is faster than torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.cell import NONE
from prunebench.plots import axes, fronts, style
from prunebench.plots.machines import words
from prunebench.plots.plot import Plot, file_name
from prunebench.plots.points import PARENT, ordered, speeds
from prunebench.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOOTER = (
    "Speed-up over the faster of torch's two eager layouts, both measured in the same interleaved blocks; bars: 95 % "
    "bootstrap intervals (over seeds: geometric means). A ring marks where a line passes 1, linear between points as "
    "drawn. "
)
_PANELS = 8  # on one image; what is beyond goes to the next
_NUMBERS = ["panel", "backend", "criterion", "schedule", "sparsity", "what", "kept", "speedup", "low", "high",
            "verdict", "status", "n", "cases"]  # fmt: skip


def plots(table: pd.DataFrame, runs: Sequence[Run]) -> Iterator[Plot]:
    """One plot per network, machine and thread count; a row of panels per granularity and scope, a column per batch."""
    about = words(runs)
    for key, rows in fronts.own_scope(speeds(table)).groupby(["machine", "threads", *PARENT]):
        machine, threads, dataset, model, recipe = key
        if (rows["criterion"] == NONE).all():
            continue
        numbers = pd.DataFrame(list(_panels(rows)), columns=_NUMBERS)
        numbers = numbers.assign(machine=machine, threads=threads, on=about[machine])
        panels = list(dict.fromkeys(numbers["panel"]))
        per_page = max(_PANELS // _columns(panels), 1) * _columns(panels)
        pages = [panels[n : n + per_page] for n in range(0, len(panels), per_page)]
        title = f"Speed-up against sparsity: {model} on {dataset} (recipe {recipe}, {style.threads_text(threads)})"
        name = ("speedup", model, dataset, recipe, machine, f"t{threads}")
        for number, page in enumerate(pages, 1):
            part = [f"part{number}"] if len(pages) > 1 else []
            own = numbers[numbers["panel"].isin(page)].reset_index(drop=True)
            yield Plot(file_name(*name, *part), title, own, draw)


def _columns(panels: Sequence[str]) -> int:
    """As many as there are batch sizes, at most 4."""
    return max(1, min(len({panel.rpartition(", ")[2] for panel in panels}), 4))


def _panels(rows: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    # As plain values: pandas would take longer to choose a line's few rows than all else takes.
    by_panel: dict[tuple[str, str, int], list[dict[Any, Any]]] = {}
    unpruned: dict[int, list[dict[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        if row["criterion"] == NONE:
            unpruned.setdefault(row["batch_size"], []).append(row)
        else:
            by_panel.setdefault((row["granularity"], row["scope"], row["batch_size"]), []).append(row)
    pruned = rows[rows["criterion"] != NONE]
    chosen = (ordered("granularity", pruned["granularity"]), ordered("scope", pruned["scope"]))
    for granularity, scope, batch in itertools.product(*chosen, sorted(set(rows["batch_size"]))):
        own = by_panel.get((granularity, scope, batch), [])
        # The unpruned network is every line's first point.
        yield from _of_panel(unpruned.get(batch, []), own, f"{granularity}, {scope}, batch {batch}")


def _of_panel(
    unpruned: Sequence[dict[Any, Any]], pruned: Sequence[dict[Any, Any]], panel: str
) -> Iterator[dict[Any, Any]]:
    lines: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    for row in pruned:
        lines.setdefault((row["backend"], row["criterion"], row["schedule"]), []).append(row)
    places = {backend: n for n, backend in enumerate(style.in_order("backend", [name for name, _, _ in lines]))}
    for key in sorted(lines, key=lambda line: (places[line[0]], *line[1:])):
        about: dict[Any, Any] = {"panel": panel, **dict(zip(("backend", "criterion", "schedule"), key, strict=True))}
        start = [row for row in unpruned if row["backend"] == key[0]]
        points = sorted([*start, *lines[key]], key=lambda row: row["sparsity"])
        for row in points:
            what = "point" if row["n"] else "failed"
            ends: dict[Any, Any] = {"low": row["speedup_low"], "high": row["speedup_high"]}
            yield {**row, **about, **ends, "what": what}
        for kept in crossings([(row["kept"], row["speedup"]) for row in points if row["n"]]):
            yield {**about, "what": "break-even", "kept": kept, "sparsity": 1 - kept, "speedup": 1.0}


def crossings(points: Sequence[tuple[float, float]]) -> list[float]:
    """Shares of weights kept at which a line of (kept, speed-up) points, straight on log scales, rises through 1."""
    found = []
    for (k0, s0), (k1, s1) in itertools.pairwise(points):
        if s0 <= 1 < s1 and k0 > 0 and k1 > 0:
            share = -math.log(s0) / (math.log(s1) - math.log(s0))
            found.append(math.exp(math.log(k0) + share * (math.log(k1) - math.log(k0))))
    return found


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Colour and marker say the backend; of its criteria and schedules each has a line."""
    first = numbers.iloc[0]
    panels = list(dict.fromkeys(numbers["panel"]))
    columns = _columns(panels)
    rows = math.ceil(len(panels) / columns)
    lost = numbers[numbers["what"] == "failed"]
    kinds = ", ".join(sorted(set(lost["status"])))
    note = "" if lost.empty else f"A cross at the bottom: {len(lost)} points without a value ({kinds}). "
    several = any(own["schedule"].nunique() > 1 for _, own in numbers.groupby(["panel", "backend", "criterion"]))
    note = ("Every schedule has a line of its own. " if several else "") + note
    footer = _FOOTER + note + style.timed_on(first["machine"], first["threads"], first["on"])
    names = style.in_order("backend", list(numbers["backend"]))
    looks, dashes = style.looks("backend", names), _dashes(numbers)
    size = (6.0, 4.0) if len(panels) == 1 else (4.4, 3.2)
    made = style.sheet(rows, columns, size, title, footer, _entries(numbers, looks, dashes),
                       (axes.SPARSITY, axes.SPEEDUP))  # fmt: skip
    corner = made.panels[0][0]
    axes.sparsity_axis(corner, numbers["kept"].dropna(), numbers.loc[numbers["what"] == "point", "sparsity"], size[0])
    values = numbers.loc[numbers["what"] == "point", ["speedup", "low", "high"]]
    axes.ratio_axis(corner.yaxis, [1.0, *values.to_numpy().ravel()])
    for panel, ax in zip(panels, style.filled(made, len(panels)), strict=True):
        own = numbers[numbers["panel"] == panel]
        ax.set_title(panel.removeprefix("weight, "), loc="left")
        ax.axhline(1.0, color=style.BLACK, linewidth=1.1, zorder=1.5)
        for name, criterion in itertools.product(names, dashes):
            mine = own[(own["backend"] == name) & (own["criterion"] == criterion)]
            for _, line in mine.groupby("schedule"):
                _line(ax, line, looks[name], dashes[criterion], f"{name} {criterion}")
    return made.figure


def _dashes(numbers: pd.DataFrame) -> dict[str, Any]:
    """{criterion: dash}: here colour and marker tell backends apart."""
    names = style.in_order("criterion", list(numbers["criterion"]))
    kinds = (*style.DASHES, (0, (6, 1.5, 1.5, 1.5)), (0, (1, 3)))
    return {name: kinds[n % len(kinds)] for n, name in enumerate(names)}


def _line(ax: Axes, line: pd.DataFrame, look: style.Look, dash: Any, gid: str) -> None:
    points = line[line["what"] == "point"]
    ax.plot(points["kept"], points["speedup"], color=look.colour, linestyle=dash, linewidth=1.4, alpha=0.9, zorder=3,
            gid=gid)  # fmt: skip
    axes.bars(ax, [points["kept"]] * 2, [points["low"], points["high"]], color=look.colour, linewidth=1.1, alpha=0.8,
              zorder=3, gid=f"{gid} intervals")  # fmt: skip
    doubt = points["verdict"].map(lambda v: style.hollow(str(v))).astype(bool)
    for chosen, face in ((points[~doubt], look.colour), (points[doubt], "white")):
        ax.plot(chosen["kept"], chosen["speedup"], linestyle="none", marker=look.marker, color=look.colour,
                markerfacecolor=face, markersize=5.5, zorder=4,
                gid=f"{gid} {'sure' if face != 'white' else 'doubtful'}")  # fmt: skip
    even = line[line["what"] == "break-even"]
    ax.plot(even["kept"], even["speedup"], linestyle="none", marker="o", markersize=11, markerfacecolor="none",
            color=look.colour, markeredgewidth=1.4, zorder=5, gid=f"{gid} break-even")  # fmt: skip
    lost = line[line["what"] == "failed"]
    ax.plot(lost["kept"], [0.03] * len(lost), linestyle="none", marker="X", color=look.colour, markersize=8,
            transform=ax.get_xaxis_transform(), clip_on=False, gid=f"{gid} failed")  # fmt: skip


def _entries(numbers: pd.DataFrame, looks: dict[str, style.Look], dashes: dict[str, Any]) -> list[Any]:
    made = [style.entry(name, color=look.colour, marker=look.marker, linestyle="none", markersize=8)
            for name, look in looks.items()]  # fmt: skip
    made += [style.entry(name, color=style.BLACK, linestyle=dash) for name, dash in dashes.items()]
    if (numbers["what"] == "break-even").any():
        made.append(style.entry("break-even", color=style.GREY, marker="o", markerfacecolor="none", linestyle="none",
                                markersize=11))  # fmt: skip
    if any(style.hollow(str(v)) for v in numbers["verdict"]):
        made.append(style.entry("unstable or inconclusive", color=style.GREY, marker="D", markerfacecolor="white",
                                linestyle="none", markersize=7))  # fmt: skip
    return made
