"""The page as HTML: one file with its style, its script, its plots and its rows inside, made from saved runs alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from prunebench import __version__
from prunebench.atomic import write_bytes
from prunebench.errors import UsageError
from prunebench.plots import plots_of
from prunebench.plots.files import Watch, unwatched, vector
from prunebench.report import about, parts
from prunebench.report.verdicts import verdicts_of
from prunebench.runs import Run

_HERE = Path(__file__).parent
# Left as they are in a plot's address, so that it grows little; `%`, `#`, `<`, `>` and `"` never are.
_PLAIN = " ;/?:@=$,+!*()'-_.~"


def write_report(runs: Sequence[Run], path: Path, watch: Watch = unwatched) -> Path:
    """Write the page of the runs; UsageError where they hold no result or the file can't be written.

    watch: iterates over the plots and may say how far it is.
    """
    text = page(runs, [(plot.title, vector(plot).decode()) for plot in watch(plots_of(runs), "plots")])
    # What can't be written as UTF-8 (half a surrogate pair in an edited run) becomes a question mark.
    write_bytes(path, text.encode(errors="replace"))
    return path


def page(runs: Sequence[Run], figures: Sequence[tuple[str, str]] = ()) -> str:
    """The page as text; the same runs give the same text. UsageError where they hold no result.

    figures: (title, SVG) of each plot.
    """
    if not any(run.cases for run in runs):
        raise UsageError("no saved run holds a result yet; run: pytest benchmarks --benchmark-save=NAME")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # jinja2's own filter escapes <, > and & for a script element.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": True}
    style, script = ((_HERE / name).read_text(encoding="utf-8").strip() for name in ("style.css", "script.js"))
    return environment.get_template("page.html").render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        version=__version__,
        verdicts=verdicts_of(runs),
        figures=_grouped(figures),
        sections=parts.sections_of(runs),
        troubles=about.troubles(runs),
        sources=about.sources(runs),
        machines=about.machines(runs),
        days=about.first_and_last(run.datetime for run in runs),
        cases=sum(run.cases for run in runs),
    )


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: this style, this script, images inside the page, and nothing from anywhere."""
    return "; ".join([
        "default-src 'none'",
        f"script-src 'sha256-{_hash(script)}'",
        f"style-src 'sha256-{_hash(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _grouped(figures: Sequence[tuple[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(kind, [(title, address)]): a plot's kind is what its title says before the colon."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for title, svg in figures:
        groups.setdefault(title.partition(":")[0], []).append((title, _address(svg)))
    return list(groups.items())


def _address(svg: str) -> str:
    # As an image, not as elements: nothing in it can run, and its ids and styles can't meet another plot's.
    return "data:image/svg+xml;charset=utf-8," + quote(svg, safe=_PLAIN, errors="replace")
