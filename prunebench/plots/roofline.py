"""Rooflines of single layers (Williams, Waterman and Patterson 2009): useful GFLOP/s against operations per byte.

The roofs are those measured in the same run. They are of arithmetic with operands in a cache; how fast main memory
feeds it was not measured, so no slanted roof is drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunebench.plots import axes, style
from prunebench.plots.machines import words
from prunebench.plots.plot import Plot, file_name
from prunebench.runs import Run
from prunebench.tables.answers import apart, latest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOOTER = (
    "A point: one layer at one sparsity. Useful: operations with a nonzero weight, a multiply-add counted as two. "
    "Bytes: the engine's weights once, plus input and output activations once, in float32. Roofs: measured in the same "
    "run, one operand of each multiply-add from L1 or L2, or torch's dense matrix product. Hollow: the timing is "
    "unstable or inconclusive. "
)
KINDS = {"conv 1×1": "o", "conv 3×3 and larger": "s", "depthwise": "^", "linear": "D"}
_ROOFS = {"l1": (0, ()), "l2": (0, (5, 1.5)), "dense": (0, (1.5, 1.2))}
_X, _Y = "arithmetic intensity: useful operations per byte (log scale)", "useful GFLOP/s (log scale)"
_WORDS = {"l1": "operands from L1", "l2": "operands from L2", "dense": "torch's dense product"}


def plots(runs: Sequence[Run]) -> Iterator[Plot]:
    """One plot per machine and thread count; a panel per batch size."""
    rows = latest(runs, "layers", lambda f: (f["layer"]["id"], f["cell"]["sparsity"], f["batch_size"]))
    about = words(runs)
    for (machine, threads), own in apart(rows).items():
        found = [{**_point(f), "machine": machine, "threads": threads, "on": about[machine]} for f in own]
        numbers = pd.DataFrame(found).sort_values(["batch_size", "sparsity", "layer"], kind="stable")
        if numbers["useful_gflops"].notna().any():
            title = f"Roofline of single layers, {style.threads_text(threads)}"
            yield Plot(file_name("roofline", machine, f"t{threads}"), title, numbers.reset_index(drop=True), draw)


def _point(f: dict[str, Any]) -> dict[str, Any]:
    shape = f["layer"]
    roofs = {f"roof_{name}": (f["roofs"] or {}).get(name) for name in _ROOFS}
    labels = {"layer": shape["id"], "kind": kind_of(shape), "sparsity": f["cell"]["sparsity"],
              "batch_size": f["batch_size"], "status": f["status"], "verdict": f["verdict"]}  # fmt: skip
    return {**labels, "intensity": intensity(f), "useful_gflops": f["useful_gflops"], **roofs}


def intensity(f: dict[str, Any]) -> float | None:
    """Useful operations per byte that a layer must move at least: its weights, input and output once."""
    if f["status"] != "ok" or f["resident_bytes"] is None or f["macs"] is None:
        return None
    s = f["layer"]
    side = s["size"] if s["kind"] != "linear" else 1
    out = (side + 2 * s["padding"] - s["kernel"]) // s["stride"] + 1 if s["kind"] != "linear" else 1
    activations = s["inputs"] * side**2 + s["outputs"] * out**2
    return 2 * f["macs"] * f["batch_size"] / (f["resident_bytes"] + 4 * f["batch_size"] * activations)


def kind_of(shape: dict[str, Any]) -> str:
    """One of KINDS for a layer's shape."""
    if shape["kind"] == "linear":
        return "linear"
    if shape["groups"] > 1:
        return "depthwise"
    return "conv 1×1" if shape["kernel"] == 1 else "conv 3×3 and larger"


def draw(numbers: pd.DataFrame, title: str) -> Figure:
    """Colour says the sparsity, marker the kind of layer, horizontal lines the roofs."""
    first = numbers.iloc[0]
    batches = sorted(set(numbers["batch_size"]))
    lost = numbers[numbers["status"] != "ok"]
    note = "" if lost.empty else f"{len(lost)} cases failed and stand in the CSV. "
    footer = _FOOTER + note + style.timed_on(first["machine"], first["threads"], first["on"])
    colours = _colours(sorted(set(numbers["sparsity"])))
    made = style.sheet(1, len(batches), (5.2, 4.4) if len(batches) > 1 else (6.0, 4.4), title, footer,
                       _entries(numbers, colours), (_X, _Y))  # fmt: skip
    roofs = [f"roof_{name}" for name in _ROOFS]
    corner = made.panels[0][0]
    axes.ratio_axis(corner.xaxis, numbers["intensity"].dropna(), "{:g}")
    axes.ratio_axis(corner.yaxis, [*numbers["useful_gflops"], *numbers[roofs].to_numpy(float).ravel()], "{:g}")
    for batch, ax in zip(batches, made.panels[0], strict=True):
        own = numbers[numbers["batch_size"] == batch]
        ax.set_title(f"batch {batch}", loc="left")
        _roofs(ax, own)
        for (sparsity, colour), (kind, marker) in itertools.product(colours.items(), KINDS.items()):
            _points(ax, own[(own["sparsity"] == sparsity) & (own["kind"] == kind)], colour, marker)
    return made.figure


def _colours(sparsities: Sequence[float]) -> dict[float, str]:
    """From dark to light as sparsity grows: an order that survives without hue."""
    import matplotlib
    from matplotlib.colors import to_hex

    scale = matplotlib.colormaps["plasma"]
    return {s: to_hex(scale(0.84 * n / max(len(sparsities) - 1, 1))) for n, s in enumerate(sparsities)}


def _entries(numbers: pd.DataFrame, colours: dict[float, str]) -> list[Any]:
    made = [style.entry(f"sparsity {100 * s:g} %", color=colour, marker="o", linestyle="none", markersize=8)
            for s, colour in colours.items()]  # fmt: skip
    made += [style.entry(kind, color=style.GREY, marker=marker, linestyle="none", markersize=8)
             for kind, marker in KINDS.items() if (numbers["kind"] == kind).any()]  # fmt: skip
    return made + [style.entry(_WORDS[name], color=style.BLACK, linestyle=dash) for name, dash in _ROOFS.items()
                   if numbers[f"roof_{name}"].notna().any()]  # fmt: skip


def _roofs(ax: Axes, own: pd.DataFrame) -> None:
    """A line where the runs agree; where they were measured again, a band from the lowest to the highest."""
    for name, dash in _ROOFS.items():
        values = own[f"roof_{name}"].dropna()
        if len(values):
            ax.axhline(values.median(), color=style.BLACK, linestyle=dash, linewidth=1.3, zorder=2, gid=f"roof {name}")
            if values.max() > 1.01 * values.min():
                ax.axhspan(values.min(), values.max(), color=style.BLACK, alpha=0.1, linewidth=0, zorder=1)


def _points(ax: Axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
    rows = rows[rows["useful_gflops"].notna()]
    doubt = rows["verdict"].map(lambda v: style.hollow(str(v))).astype(bool)
    for chosen, face in ((rows[~doubt], colour), (rows[doubt], "none")):
        if len(chosen):
            ax.plot(chosen["intensity"], chosen["useful_gflops"], linestyle="none", marker=marker, color=colour,
                    markerfacecolor=face, markeredgecolor="white" if face == colour else colour,
                    markeredgewidth=0.5 if face == colour else 1.2, markersize=6, alpha=0.85, zorder=3,
                    gid=f"points {colour} {marker}")  # fmt: skip
