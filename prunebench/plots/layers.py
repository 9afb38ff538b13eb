"""Speed-ups of single layers over the better of torch's dense layouts, against sparsity: a panel per network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from prunebench.plots import axes, style
from prunebench.plots.machines import words
from prunebench.plots.plot import Plot, file_name
from prunebench.plots.roofline import KINDS, kind_of
from prunebench.runs import Run
from prunebench.shapes import known_networks
from prunebench.tables.answers import apart
from prunebench.tables.layers import layer_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOOTER = (
    "A line: one layer's shape, by every sparsity it was measured at; a stroke: its 95 % interval. Above the black "
    "line the sparse engine is faster than the better of torch's dense layouts. Hollow: unstable or inconclusive. "
)
_COLOURS = dict(zip(KINDS, style.CYCLE, strict=False))


def plots(runs: Sequence[Run]) -> Iterator[Plot]:
    """One plot per machine and thread count: a panel per network and batch size, a shape in each of its networks."""
    about = words(runs)
    for (machine, threads), own in apart(layer_rows(runs)).items():
        on = {"machine": machine, "threads": threads, "on": about[machine]}
        found = [
            {"network": network, "batch_size": f["batch_size"], "layer": f["layer"]["id"], "kind": kind_of(f["layer"]),
             "sparsity": f["cell"]["sparsity"], "kept": 1 - f["cell"]["sparsity"], "speedup": f["speedup"],
             "low": f["speedup_low"], "high": f["speedup_high"], "verdict": f["verdict"], "status": f["status"], **on}
            for f in own for network in f["networks"]
        ]  # fmt: skip
        numbers = pd.DataFrame(found)
        if len(numbers) and numbers["speedup"].notna().any():
            order = numbers["network"].map({name: n for n, name in enumerate(known_networks())})
            numbers = numbers.assign(order=order).sort_values(
                ["batch_size", "order", "network", "layer", "sparsity"], kind="stable"
            )
            title = f"Speed-up of single layers, {style.threads_text(threads)}"
            name = file_name("layer_speedup", machine, f"t{threads}")
            yield Plot(name, title, numbers.drop(columns="order").reset_index(drop=True), draw)


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Colour and marker say the kind of layer."""
    first = numbers.iloc[0]
    panels = list(dict.fromkeys(zip(numbers["batch_size"], numbers["network"], strict=True)))
    columns = min(3, len(panels))
    lost = numbers[numbers["status"] != "ok"]
    note = "" if lost.empty else f"{len(lost)} cases failed and stand in the CSV. "
    footer = _FOOTER + note + style.timed_on(first["machine"], first["threads"], first["on"])
    entries = [style.entry(kind, color=_COLOURS[kind], marker=marker, linestyle="-", markersize=7)
               for kind, marker in KINDS.items() if (numbers["kind"] == kind).any()]  # fmt: skip
    made = style.sheet(-(-len(panels) // columns), columns, (3.7, 2.9), title, footer, entries,
                       (axes.SPARSITY, axes.SPEEDUP))  # fmt: skip
    corner = made.panels[0][0]
    axes.sparsity_axis(corner, numbers["kept"], numbers["sparsity"], 3.7)
    axes.ratio_axis(corner.yaxis, [1.0, *numbers[["speedup", "low", "high"]].to_numpy(float).ravel()])
    for (batch, network), ax in zip(panels, style.filled(made, len(panels)), strict=True):
        own = numbers[(numbers["batch_size"] == batch) & (numbers["network"] == network)]
        ax.set_title(f"{network}, batch {batch}", loc="left")
        ax.axhline(1.0, color=style.BLACK, linewidth=1.1, zorder=1.5)
        for layer, line in own[own["speedup"].notna()].groupby("layer", sort=False):
            _line(ax, line, str(layer))
    return made.figure


def _line(ax: Axes, line: pd.DataFrame, layer: str) -> None:
    kind = line.iloc[0]["kind"]
    colour, marker = _COLOURS[kind], KINDS[kind]
    ax.plot(line["kept"], line["speedup"], color=colour, linewidth=0.9, alpha=0.7, zorder=3, gid=f"line {layer}")
    axes.bars(ax, [line["kept"]] * 2, [line["low"], line["high"]], color=colour, linewidth=0.9, alpha=0.6, zorder=3,
              gid=f"intervals {layer}")  # fmt: skip
    doubt = line["verdict"].map(lambda v: style.hollow(str(v))).astype(bool)
    for chosen, face in ((line[~doubt], colour), (line[doubt], "white")):
        if len(chosen):
            ax.plot(chosen["kept"], chosen["speedup"], linestyle="none", marker=marker, color=colour, markersize=4,
                    markerfacecolor=face, markeredgewidth=0.8, zorder=4, gid=f"points {layer}")  # fmt: skip
