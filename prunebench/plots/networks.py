"""Whole networks, every way to run them beside each other: how many times faster than the fastest dense way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.plots import axes, style
from prunebench.plots.machines import words
from prunebench.plots.plot import Plot, file_name
from prunebench.runs import Run
from prunebench.tables.answers import apart
from prunebench.tables.networks import network_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOOTER = (
    "A mark: the time of the fastest dense way divided by that of this one, so 1× is the fastest dense way and what "
    "lies left of it is slower. A stroke: the sparse engine's 95 % interval, from interleaved blocks. Weights are "
    "random, pruned layer by layer. Hollow: unstable or inconclusive. "
)
_DROPPED = "Pale: clearly slower, so timed in the first blocks only. "
_X = "speed relative to the fastest dense way (log scale)"


def plots(runs: Sequence[Run]) -> Iterator[Plot]:
    """One plot per machine, thread count and sparsity: a line per network and batch size."""
    about = words(runs)
    for (machine, threads), own in apart(network_rows(runs)).items():
        for sparsity in sorted({f["cell"]["sparsity"] for f in own}):
            rows = [row for f in own if f["cell"]["sparsity"] == sparsity for row in _rows(f)]
            numbers = pd.DataFrame(rows).assign(machine=machine, threads=threads, on=about[machine])
            if numbers["ratio"].notna().any():
                title = f"Whole networks at {100 * sparsity:g} % sparsity, {style.threads_text(threads)}"
                name = file_name("networks", f"s{round(1000 * sparsity):03d}", machine, f"t{threads}")
                yield Plot(name, title, numbers, draw)


def _rows(f: dict[str, Any]) -> Iterator[dict[str, Any]]:
    label = {"network": f"{f['cell']['model']}, batch {f['batch_size']}"}
    nothing = {"milliseconds": math.nan, "ratio": math.nan, "low": math.nan, "high": math.nan, "verdict": None,
               "dropped": False}  # fmt: skip
    if f["status"] != "ok":
        yield {**label, "way": f["backend"], **nothing, "status": f["status"]}
        return
    base = (f["arms"].get(f["baseline"]) or {}).get("seconds") or math.nan
    for way, arm in f["arms"].items():
        row = {**label, "way": way, **nothing, "status": arm["status"]}
        if arm["status"] == "ok":
            row |= {"milliseconds": 1000 * arm["seconds"], "ratio": base / arm["seconds"],
                    "dropped": arm["blocks"] < f["blocks"]}  # fmt: skip
        if way == f["backend"]:
            # The paired estimate, not the ratio of two medians: the interval is its own.
            row |= {"ratio": f["speedup"], "low": f["speedup_low"], "high": f["speedup_high"], "verdict": f["verdict"]}
        yield row


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Colour and marker say the way."""
    first = numbers.iloc[0]
    networks = list(dict.fromkeys(numbers["network"]))
    lost = numbers[numbers["status"] != "ok"]
    note = "" if lost.empty else f"{len(lost)} ways did not run and stand in the CSV. "
    note = (_DROPPED if numbers["dropped"].any() else "") + note
    footer = _FOOTER + note + style.timed_on(first["machine"], first["threads"], first["on"])
    names = style.in_order("backend", list(numbers["way"]))
    looks = style.looks("backend", names)
    entries = [style.entry(name, color=looks[name].colour, marker=looks[name].marker, linestyle="none", markersize=8)
               for name in names]  # fmt: skip
    size = (8.2, 0.42 * len(networks) + 0.4)
    made = style.sheet(1, 1, size, title, footer, entries, (_X, ""))
    ax = made.panels[0][0]
    box = ax.get_position()
    ax.set_position((0.21, box.y0, box.x1 - 0.21, box.height))  # room for the networks' names
    axes.ratio_axis(ax.xaxis, [1.0, *numbers[["ratio", "low", "high"]].to_numpy(float).ravel()])
    ax.set_yticks(range(len(networks)), networks)
    ax.set_ylim(len(networks) - 0.5, -0.5)
    ax.axvline(1.0, color=style.BLACK, linewidth=1.1, zorder=1.5)
    place = {name: n for n, name in enumerate(networks)}
    for name in reversed(names):
        _marks(ax, numbers[(numbers["way"] == name) & numbers["ratio"].notna()], place, looks[name], name)
    return made.figure


def _marks(ax: Axes, own: pd.DataFrame, place: dict[str, int], look: style.Look, name: str) -> None:
    y = own["network"].map(place)
    axes.bars(ax, [own["low"], own["high"]], [y, y], color=look.colour, linewidth=1.6, gid=f"intervals {name}")
    doubt = own["verdict"].map(lambda v: style.hollow(str(v))).astype(bool)
    dropped = own["dropped"].astype(bool)
    kinds = (("sure", ~doubt & ~dropped), ("dropped", ~doubt & dropped), ("doubtful", doubt))
    for kind, rows in kinds:
        chosen, face = own[rows], "white" if kind == "doubtful" else look.colour
        if len(chosen):
            ax.plot(chosen["ratio"], chosen["network"].map(place), linestyle="none", marker=look.marker,
                    color=look.colour, markerfacecolor=face, markersize=7, alpha=0.35 if kind == "dropped" else 0.9,
                    zorder=3.5 if kind == "dropped" else 4, gid=f"{name} {kind}")  # fmt: skip
