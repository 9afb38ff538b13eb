"""A table as text: Markdown, CSV, HTML or LaTeX, the same bytes for the same rows.

Words in a table come from saved runs, which anybody may have written: in every format they stay words.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pandas as pd
from tabulate import tabulate

from prunebench.errors import unknown
from prunebench.untrusted import plain_line

FORMATS = {"github": ".md", "csv": ".csv", "html": ".html", "latex": ".tex"}
_TABULATE = {"github": "github", "html": "html", "latex": "latex_booktabs"}
# Entities, not backslashes: a backslash before a pipe may itself be behind one. `](` makes links and images.
_MARKDOWN = (("|", "&#124;"), ("<", "&lt;"), ("](", "]&#40;"))
# What a spreadsheet takes for a formula: these in front, or a sign before more than numbers and words.
_FORMULA = re.compile(r"[=@]|[-+](?!\d[\w\s.,%×±\[\]–−+-]*$)")


def render(table: pd.DataFrame, format: str, links: Collection[str] = ()) -> str:
    """A table as text in one of FORMATS; links: columns that hold Markdown of our own making."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv":
        safe = table.apply(lambda column: column.map(_comma)).rename(columns=_comma)
        return safe.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    word = markdown if format == "github" else plain_line
    rows = [
        [str(value) if name in links else word(value) for name, value in zip(table.columns, row, strict=True)]
        for row in table.astype(str).values.tolist()
    ]
    text = tabulate(rows, headers=list(map(word, table.columns)), tablefmt=_TABULATE[format], disable_numparse=True)
    # Without the character set a browser may read the file as Latin-1.
    return ('<meta charset="utf-8">\n' if format == "html" else "") + str(text) + "\n"


def in_every_format(name: str, table: pd.DataFrame) -> dict[str, str]:
    """{file name: text} of a table in every format."""
    return {f"{name}{suffix}": render(table, format) for format, suffix in FORMATS.items()}


def markdown(text: object) -> str:
    """Text that stays text in a line of Markdown, or in a cell of its tables: no cell ends, no tag, no link."""
    line = plain_line(text)
    for character, shown in _MARKDOWN:
        line = line.replace(character, shown)
    return line


def _comma(value: Any) -> Any:
    """A value for CSV; an apostrophe before what a spreadsheet would calculate (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    line = plain_line(value)
    return f"'{line}" if _FORMULA.match(line) else line


def speedup_text(speedup: float, low: float | None, high: float | None, verdict: str | None) -> str:
    """`2.31× [2.25, 2.40]`, with the verdict behind it where it isn't one to rely on."""
    ends = "" if low is None or high is None or low != low or high != high else f" [{low:.2f}, {high:.2f}]"
    doubt = "" if verdict in ("faster", "slower", None) else f" {verdict}"
    return f"{speedup:.2f}×{ends}{doubt}"
