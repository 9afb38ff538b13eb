"""What commands say: one JSON document under --json, tables for eyes or for files, colours only where they are wanted.

Results go to stdout, everything else to stderr. Under --json stdout carries the document alone: what a library or a
plugin prints on the way is sent to stderr as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from prunebench.errors import UsageError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

SCHEMA = 1  # of every document; a key may be added under the same number, none changes its meaning
PLAIN_FORMATS = ("github", "csv", "html", "latex")
# What a word of a verdict or of a check looks like on a terminal.
STYLES = {
    "faster": "green", "holds": "green", "ok": "green", "ready": "green", "yes": "green",
    "slower": "red", "refuted": "red", "broken": "bold red", "failed": "bold red", "diverged": "bold red", "no": "red",
    "inconclusive": "yellow", "unstable": "yellow", "undecided": "yellow", "mixed": "yellow", "warning": "yellow",
}  # fmt: skip
_WORDS = re.compile(rf"\b({'|'.join(STYLES)})\b")
_T = TypeVar("_T")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option --json; the command then calls `emit` instead of printing."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")


@contextlib.contextmanager
def kept_clean(options: argparse.Namespace) -> Iterator[None]:
    """Under --json whatever is printed while the command runs goes to stderr; only `emit` reaches stdout."""
    if not getattr(options, "json", False):
        yield
        return
    if getattr(options, "format", None) is not None:
        raise UsageError("--json and --format are two ways to print the same; give one of them")
    options.stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield


def emit(options: argparse.Namespace, **fields: Any) -> None:
    """Print the command's document: `schema`, `command` and the fields; what JSON can't hold (NaN) becomes null.

    Values: dicts, lists, tuples, strings, numbers (numpy's too), paths, pandas tables (a list of rows).
    """
    document = {"schema": SCHEMA, "command": options.command, **fields}
    print(json.dumps(_plain(document), indent=1, allow_nan=False), file=getattr(options, "stdout", sys.stdout))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _plain(value.to_dict("records"))
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # NaN and the infinities are not JSON
    return value


def tell(text: str) -> None:
    """One line to stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def coloured(stream: TextIO | None = None) -> bool:
    """Whether to colour: NO_COLOR forbids it, else FORCE_COLOR demands it (no-color.org), else a terminal has it."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream or sys.stdout) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads along."""
    return hasattr(stream, "isatty") and stream.isatty()


def check_format(format: str | None) -> None:
    """UsageError unless it is None or one of PLAIN_FORMATS."""
    if format is not None and format not in PLAIN_FORMATS:
        raise unknown("format", format, PLAIN_FORMATS)


def draws() -> bool:
    """Whether a table without a format is drawn for a person rather than written as Markdown."""
    return coloured() or is_terminal(sys.stdout)


def show_table(table: pd.DataFrame, format: str | None) -> None:
    """A table on stdout: in the format asked for; else drawn for a terminal, else in Markdown."""
    from prunebench.tables.rendering import render

    if format is not None or not draws():
        print(render(table, format or "github"), end="")
        return
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in table.columns:
        drawn.add_column(readable(str(column)))
    for row in table.astype(str).values.tolist():
        drawn.add_row(*(_highlighted(cell) for cell in row))
    _console(sys.stdout).print(drawn)


def show(text: str, end: str = "\n") -> None:
    """Print text; on a terminal with its verdicts coloured. Without colours the bytes are the text's own."""
    if coloured():
        _console(sys.stdout).print(_highlighted(text, keep="\n"), soft_wrap=True, end=end)
    else:
        print(text, end=end)


def readable(text: str, keep: str = "") -> str:
    """The text without what could steer a terminal: names and reasons come from files that anybody may have written."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def _highlighted(text: str, keep: str = "") -> Any:
    from rich.text import Text

    found = Text(readable(text, keep))
    for match in _WORDS.finditer(found.plain):
        found.stylize(STYLES[match[0]], match.start(), match.end())
    return found


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    colours = coloured(stream)
    # Where nobody looks on, nothing is folded: a log's line may be of any length.
    width = shutil.get_terminal_size().columns if is_terminal(stream) or os.environ.get("COLUMNS") else 10_000
    return Console(
        file=stream, force_terminal=colours, no_color=not colours, highlight=False, width=width,
        color_system="standard" if colours else None,
    )  # fmt: skip


def watched(items: Sequence[_T], what: str) -> Iterator[_T]:
    """The items one by one; where they take over 2 s together, stderr says how many are done and how long it takes."""
    from prunebench.progress import Loop

    loop = Loop(tell, what, len(items), bar=is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb")
    try:
        for item in items:
            yield item
            loop.advance()
    finally:
        loop.close()
