"""A table as text: Markdown, CSV, HTML or LaTeX, the same bytes for the same rows."""

from __future__ import annotations

import pandas as pd
from tabulate import tabulate

from prunebench.errors import unknown

FORMATS = {"github": ".md", "csv": ".csv", "html": ".html", "latex": ".tex"}
_TABULATE = {"github": "github", "html": "html", "latex": "latex_booktabs"}


def render(table: pd.DataFrame, format: str) -> str:
    """A table as text in one of FORMATS."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    rows = table.astype(str).values.tolist()
    text = tabulate(rows, headers=list(table.columns), tablefmt=_TABULATE[format], disable_numparse=True)
    # Without the character set a browser may read the file as Latin-1.
    return ('<meta charset="utf-8">\n' if format == "html" else "") + str(text) + "\n"


def in_every_format(name: str, table: pd.DataFrame) -> dict[str, str]:
    """{file name: text} of a table in every format."""
    return {f"{name}{suffix}": render(table, format) for format, suffix in FORMATS.items()}


def speedup_text(speedup: float, low: float | None, high: float | None, verdict: str | None) -> str:
    """`2.31× [2.25, 2.40]`, with the verdict behind it where it isn't one to rely on."""
    ends = "" if low is None or high is None or low != low or high != high else f" [{low:.2f}, {high:.2f}]"
    doubt = "" if verdict in ("faster", "slower", None) else f" {verdict}"
    return f"{speedup:.2f}×{ends}{doubt}"
