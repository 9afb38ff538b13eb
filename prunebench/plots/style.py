"""One look for every plot: colours that colour-blind readers tell apart, a fixed one per method, and readable type.

Colours are Okabe and Ito's (2008, "Color Universal Design"); markers and dashes differ as well, so that a plot can be
read without any colour. `random`, the baseline that a method must beat, is grey everywhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, BLACK, FAINT = "#767676", "#222222", "#BBBBBB"
MARKERS = "os^DvP<>h8H"  # 11 and the 6 colours have no factor in common: pairs repeat late
DASHES: tuple[Any, ...] = ((0, ()), (0, (5, 1.5)), (0, (1.5, 1.2)))
DPI = 120

# The order gives the look: a name added at a list's end changes no plot that there is.
ORDER = {
    "criterion": "l1 l2 gradient snip taylor synflow grasp obd wanda movement woodfisher obc linf lp bn_scale fpgm",
    "scope": "global layerwise erk lamp",
    "schedule": "agp one_shot linear polynomial cosine geometric",
    "granularity": "weight filter channel n_m block",
    "backend": "csr scipy_csr masked dense torch_compile torch_jit onnxruntime openvino"
    " dense_channels_last compact csr_unpruned torch_csr jax jax_bcsr tensorflow",
    "control": "itself l1",
}

_RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 11.5, "figure.titlesize": 14,
    "xtick.labelsize": 11, "ytick.labelsize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#E4E4E4", "grid.linewidth": 0.8, "lines.linewidth": 1.7, "lines.markersize": 6,
    "axes.formatter.use_mathtext": False, "text.parse_math": False,  # a `$` in a name is a dollar
    "legend.frameon": False, "savefig.dpi": DPI, "figure.dpi": DPI,
    "svg.fonttype": "path",  # looks alike on every machine, whatever fonts it has
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    marker: str
    dash: Any

    def line(self) -> dict[str, Any]:
        """Keyword values of Axes.plot."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}


def looks(axis: str, names: Sequence[str]) -> dict[str, Look]:
    """{name: look}, alike in every plot for a built-in; others take, by name, what the list leaves over."""
    known = ORDER.get(axis, "").split()
    rest = sorted({name for name in names if name not in known and name != "random"})
    places = {name: n for n, name in enumerate([*known, *rest])}
    return {name: _look(places[name]) if name in places else Look(GREY, "p", (0, (4, 1.2, 1, 1.2))) for name in names}


def _look(n: int) -> Look:
    return Look(CYCLE[n % len(CYCLE)], MARKERS[n % len(MARKERS)], DASHES[n % len(DASHES)])


def in_order(axis: str, names: Sequence[str]) -> list[str]:
    """Distinct names in the fixed order, unknown ones behind it, `random` last."""
    known = ORDER.get(axis, "").split()
    place = {name: n for n, name in enumerate(known)}
    return sorted(set(names), key=lambda name: (name == "random", place.get(name, len(known)), name))


@contextmanager
def look(name: str) -> Iterator[None]:
    """Draw and save inside this: matplotlib's defaults with the look above, and what was before afterwards.

    name: of the plot; ids inside its SVG come from it, so that several can stand in one page.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", {**_RC, "svg.hashsalt": name}]):
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure laid out in inches: title, rows and columns of panels, a key below each column, a legend, notes."""

    figure: Figure
    panels: list[list[Axes]]
    keys: list[Axes]


def sheet(
    rows: int, columns: int, panel: tuple[float, float], title: str, notes: str, entries: Sequence[Any],
    labels: tuple[str, str], share: bool = True, key_lines: int = 0,
) -> Sheet:  # fmt: skip
    """An empty sheet on the Agg canvas. panel: width and height of one; labels: of the x and y axes; share: both axes.

    Laid out by hand, because matplotlib's own ways place neither notes nor a legend below a common label.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left, right, gap, over = 1.02, 0.25, (0.28, 0.5) if share else (1.0, 0.5), 0.34
    width = max(left + columns * panel[0] + (columns - 1) * gap[0] + right, 7.2)
    heading, text = textwrap.wrap(title, int(8.4 * width)), textwrap.wrap(notes, int(13.2 * width))
    across = max(1, min(len(entries), int((width - 0.3) / max(0.62 + 0.098 * len(e.get_label()) for e in entries))))
    heights = {
        "notes": 0.165 * len(text) + 0.14,
        "legend": 0.255 * -(-len(entries) // across) + 0.12,
        "keys": 0.19 * key_lines + 0.1 if key_lines else 0.0,
        "labels": 0.62,
        "panels": rows * panel[1] + (rows - 1) * gap[1],
        "heading": over + 0.27 * len(heading) + 0.1,
    }
    height = sum(heights.values())
    made = Figure(figsize=(width, height))
    FigureCanvasAgg(made)
    made.text(0.12 / width, 1 - 0.09 / height, "\n".join(heading), va="top", fontsize=14, weight="bold")
    made.text(0.12 / width, 0.07 / height, "\n".join(text), va="bottom", fontsize=9.5, color="#555555")
    made.legend(
        handles=list(entries), loc="lower left", bbox_to_anchor=(0.05 / width, heights["notes"] / height),
        ncols=across, handlelength=2.6, columnspacing=1.2, borderaxespad=0, borderpad=0.2, labelspacing=0.35,
    )  # fmt: skip
    below = heights["notes"] + heights["legend"] + heights["keys"]
    bottom = below + heights["labels"]
    inner = (width - left - right - (columns - 1) * gap[0]) / columns
    grid = made.subplots(
        rows, columns, squeeze=False, sharex=share, sharey=share,
        gridspec_kw={"left": left / width, "right": 1 - right / width, "bottom": bottom / height,
                     "top": (bottom + heights["panels"]) / height, "wspace": gap[0] / inner,
                     "hspace": gap[1] / panel[1]},
    )  # fmt: skip
    middle = (left + width - right) / 2 / width
    made.text(middle, (below + 0.1) / height, labels[0], ha="center", fontsize=12)
    made.text(0.12 / width, (bottom + heights["panels"] / 2) / height, labels[1], rotation=90, va="center", fontsize=12)
    keys = []
    for n in range(columns if key_lines else 0):
        place = (left + n * (inner + gap[0])) / width, (below - heights["keys"]) / height
        keys.append(made.add_axes((*place, inner / width, heights["keys"] / height)))
        bare(keys[-1])
    return Sheet(made, [list(row) for row in grid], keys)


def filled(made: Sheet, count: int) -> list[Axes]:
    """The first `count` panels in reading order; the others are blanked, and a column's last keeps its labels."""
    every = [ax for row in made.panels for ax in row]
    for n, ax in enumerate(every):
        if n >= count:
            bare(ax)
        elif n + len(made.panels[0]) >= count:
            ax.tick_params(labelbottom=True)
    return every[:count]


def entry(label: str, **line: Any) -> Any:
    """One entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **line)


def bare(ax: Axes) -> None:
    """A panel that no data fill."""
    ax.set_axis_off()


def hollow(verdict: str) -> bool:
    """True for a timing that is not to be relied on, whatever else its seeds say."""
    return "unstable" in verdict or "inconclusive" in verdict


def threads_text(threads: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def timed_on(machine: str, threads: int, what: str) -> str:
    """The footer of a plot with timings."""
    return f"Machine {machine} ({what}), {threads_text(threads)}."


def span(counts: pd.Series) -> str:
    """`3`, or `3–5` where the numbers of seeds differ."""
    if counts.empty:
        return "0"
    return f"{counts.min():.0f}" + ("" if counts.min() == counts.max() else f"–{counts.max():.0f}")
