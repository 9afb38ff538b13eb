"""The README's numbers: blocks between marks are generated from saved runs, so that nobody types a number.

A block begins with `<!-- table: KEY=VALUE … -->` and ends with `<!-- end of table -->`; the pairs choose rows of the
main table (`machine`, `threads`, and any column of the detailed one), `drop=A,B` leaves columns out, and
`controls=true` lets controls with another row's proportions in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from prunebench.atomic import write_text
from prunebench.cell import NONE
from prunebench.controls import copied
from prunebench.errors import UsageError
from prunebench.runs import Run
from prunebench.tables import detail, frame, main_table, render

_BLOCK = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def refresh(path: Path, runs: Sequence[Run]) -> bool:
    """Rewrite a document's generated blocks in place; returns whether it changed. A missing document is left alone."""
    if not path.is_file():
        return False
    before = path.read_text()
    details = detail(frame(runs)) if _BLOCK.search(before) else None
    after = _BLOCK.sub(lambda m: m[1] + _block(m[2], details) + m[3], before)
    if after != before:
        write_text(path, after)
    return after != before


def _block(query: str, details: pd.DataFrame) -> str:
    for pair in query.split():
        if "=" not in pair:
            raise UsageError(f"README's block 'table: {query}': {pair!r} is not of the form KEY=VALUE")
    wanted = dict(pair.split("=", 1) for pair in query.split())
    dropped = [name.replace("_", " ") for name in wanted.pop("drop", "").split(",") if name]
    if not {"machine", "threads"} <= set(wanted):
        raise UsageError(f"README's block 'table: {query}' must name machine= and threads=, which never mix")
    machine, threads = wanted.pop("machine"), wanted.pop("threads")
    if wanted.pop("controls", "false") != "true":
        details = details[[copied(scope) is None for scope in details["scope"]]]
    if not threads.isdecimal():
        raise UsageError(f"README's block 'table: {query}': threads={threads} is not a whole number")
    chosen = details
    for column, values in wanted.items():
        if column not in chosen.columns:
            raise UsageError(f"README's block 'table: {query}' chooses by {column!r}, which is no column of detail.csv")
        # The unpruned control stays beside whatever method is chosen.
        control = (chosen["criterion"] == NONE) & (
            column in ("criterion", "granularity", "scope", "schedule", "sparsity")
        )
        chosen = chosen[chosen[column].astype(str).isin(values.split(",")) | control]
    table = main_table(chosen, machine, int(threads))
    if table.empty:
        raise UsageError(f"README's block 'table: {query}' finds no result; save a run that has it")
    return render(table.drop(columns=[c for c in dropped if c in table.columns]), "github")
