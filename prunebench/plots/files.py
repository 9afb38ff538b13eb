"""Every plot written into a folder: numbers always, images only where the numbers changed, and an index.

A PNG's or SVG's bytes depend on the versions of matplotlib and FreeType, its numbers don't. So each image carries a
hash of its numbers, and one that carries the right hash is left as it is: the same runs give the same files anywhere.
Beside the hash stands the revision of how plots are drawn, so that a better drawing replaces those that lie there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.atomic import make_folder, write_bytes, write_text
from prunebench.errors import UsageError
from prunebench.plots import accuracy, curves, layers, memory, networks, pareto, roofline, speed, style
from prunebench.plots.plot import Plot
from prunebench.runs import Run
from prunebench.tables.grid import frame
from prunebench.tables.rendering import markdown
from prunebench.untrusted import is_plain, plain_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (
    "accuracy_by_", "pareto_speedup-", "pareto_bytes-", "speedup-", "networks-", "layer_speedup-", "roofline-",
    "schedules",
)  # fmt: skip
_SUFFIXES = (".csv", ".svg", ".png")
Watch = Callable[[Sequence[Any], str], Iterable[Any]]
REVISION = 2  # of how plots are drawn; to be raised with every change that shows
_COLOURS = 128  # of a PNG's palette: a third of the size, and no colour moves by more than an eye could see


def unwatched(items: Sequence[Any], what: str) -> Iterable[Any]:
    """The items, with nothing said."""
    return items


def plots_of(runs: Sequence[Run]) -> list[Plot]:
    """Every plot that the runs have numbers for, in the order of the index."""
    return list(_named_apart(_plots(runs)))


def _plots(runs: Sequence[Run]) -> Iterator[Plot]:
    if any(run.facts for run in runs):
        table = frame(runs)
        yield from accuracy.plots(table)
        yield from pareto.plots(table, runs)
        yield from memory.plots(table)
        yield from speed.plots(table, runs)
    yield from networks.plots(runs)
    yield from layers.plots(runs)
    yield from roofline.plots(runs)
    yield from curves.plots()


def _named_apart(found: Iterator[Plot]) -> Iterator[Plot]:
    """Folders of images may differ in what an id leaves out; no plot may overwrite another."""
    seen: dict[str, int] = {}
    for plot in found:
        seen[plot.name] = number = seen.get(plot.name, 0) + 1
        yield plot if number == 1 else Plot(f"{plot.name}-{number}", plot.title, plot.numbers, plot.draw)


def write_plots(runs: Sequence[Run], folder: Path, watch: Watch = unwatched) -> list[Path]:
    """Write every plot of the runs as CSV, SVG and PNG, and remove plots of runs no longer there; returns the files.

    watch: iterates over the plots and may say how far it is.
    """
    if not any(run.cases for run in runs):
        raise UsageError("no saved run holds a result yet; run: pytest benchmarks --benchmark-save=NAME")
    found = plots_of(runs)
    make_folder(folder)
    for plot in watch(found, "plots"):
        write_text(folder / f"{plot.name}.csv", plot.csv)
        if not all(_up_to_date(folder / f"{plot.name}{suffix}", plot) for suffix in (".svg", ".png")):
            for suffix, content in images(plot).items():
                write_bytes(folder / f"{plot.name}{suffix}", content)
    write_text(folder / "index.md", _index(found))
    files = [folder / f"{plot.name}{suffix}" for plot in found for suffix in _SUFFIXES]
    for old in folder.iterdir():
        if old.suffix in _SUFFIXES and old.name.startswith(_KINDS) and old not in files:
            old.unlink(missing_ok=True)
    return [*files, folder / "index.md"]


def _mark(plot: Plot) -> str:
    return f"numbers sha256:{plot.digest}, drawing {REVISION}."


def _up_to_date(path: Path, plot: Plot) -> bool:
    try:
        return _mark(plot).encode() in path.read_bytes()
    except OSError:
        return False


def vector(plot: Plot) -> bytes:
    """The plot as SVG."""
    with style.look(plot.name):
        return _svg(plot, _drawn(plot))


def _drawn(plot: Plot) -> Figure:
    """The plot's figure, every word in it plain: a control character would make the SVG one that nothing can read."""
    from matplotlib.text import Text

    figure = plot.draw(plot.numbers, plot.title)
    for text in figure.findobj(Text):
        lines = text.get_text().split("\n")
        if not all(map(is_plain, lines)):
            text.set_text("\n".join(map(plain_line, lines)))
    return figure


def _svg(plot: Plot, figure: Figure) -> bytes:
    content = io.BytesIO()
    about = {"Date": None, "Creator": None, "Title": plain_line(plot.title), "Description": _mark(plot)}
    figure.savefig(content, format="svg", metadata=about)
    # A thousandth of a point is enough for an eye, and takes a fifth off the file.
    return re.sub(rb"(\.\d{3})\d+", rb"\1", content.getvalue())


def images(plot: Plot) -> dict[str, bytes]:
    """{suffix: content}: the same numbers give the same bytes with the same matplotlib. No date, no version in them."""
    from PIL import Image, PngImagePlugin

    pixels, small = io.BytesIO(), io.BytesIO()
    with style.look(plot.name):
        figure = _drawn(plot)
        vectors = _svg(plot, figure)
        figure.savefig(pixels, format="png")
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", _mark(plot))
    pixels.seek(0)
    image = Image.open(pixels).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(small, "PNG", pnginfo=info, optimize=True, dpi=(style.DPI, style.DPI))
    return {".svg": vectors, ".png": small.getvalue()}


def _index(found: Sequence[Plot]) -> str:
    parts = [_NOTES]
    for plot in found:
        title = markdown(plot.title).replace("[", "(").replace("]", ")")
        parts.append(f"## {title}\n\n![{title}]({plot.name}.svg)\n\n[its numbers]({plot.name}.csv)\n")
    return "\n".join(parts)


_NOTES = """# Plots

Generated by `prunebench tables` from the runs under `results/runs/`; edits here are lost. Beside every image lies a
CSV of exactly what it draws. Timings of different machines or thread counts never share a plot.
"""
