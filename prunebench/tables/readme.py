"""The numbers in README and docs: blocks between marks are generated from saved runs, so that nobody types a number.

A block begins with `<!-- table: KEY=VALUE … -->` and ends with `<!-- end of table -->`; the pairs choose rows of the
main table (`machine`, `threads`, and any column of the detailed one), `drop=A,B` leaves columns out, and
`controls=true` lets controls with another row's proportions in. `kind=networks`, or another kind of table, takes
that one instead: its rows are chosen by its own columns. Blanks are written as _. `kind=claims` takes the registered
claims (`claim=A,B` chooses some), which name their machines themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from prunebench.atomic import write_text
from prunebench.cell import NONE
from prunebench.claims import judge, registered, summary_table
from prunebench.controls import copied
from prunebench.errors import UsageError
from prunebench.runs import Run
from prunebench.tables.answers import Key
from prunebench.tables.files import kinds_of
from prunebench.tables.grid import details_of, main_table, render

_BLOCK = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def refresh(path: Path, runs: Sequence[Run]) -> bool:
    """Rewrite a document's generated blocks in place; returns whether it changed. A missing document is left alone."""
    if not path.is_file():
        return False
    before = path.read_text()
    after = _BLOCK.sub(lambda m: m[1] + _block(m[2], runs) + m[3], before)
    if after != before:
        write_text(path, after)
    return after != before


def _block(query: str, runs: Sequence[Run]) -> str:
    for pair in query.split():
        if "=" not in pair:
            raise UsageError(f"the block 'table: {query}': {pair!r} is not of the form KEY=VALUE")
    wanted = dict(pair.split("=", 1) for pair in query.split())
    dropped = wanted.pop("drop", "").replace("_", " ").split(",")
    if wanted.get("kind") == "claims":
        return _rendered(query, _claims(query, wanted.get("claim"), runs), dropped)
    if not {"machine", "threads"} <= set(wanted):
        raise UsageError(f"the block 'table: {query}' must name machine= and threads=, which never mix")
    machine, threads = wanted.pop("machine"), wanted.pop("threads")
    controls, kind = wanted.pop("controls", "false"), wanted.pop("kind", "main")
    if not threads.isdecimal():
        raise UsageError(f"the block 'table: {query}': threads={threads} is not a whole number")
    if kind == "main":
        table = _main(query, wanted, runs, (machine, int(threads)), controls == "true")
    else:
        table = _other(query, wanted, runs, kind, (machine, int(threads)))
    return _rendered(query, table, dropped)


def _rendered(query: str, table: pd.DataFrame, dropped: Sequence[str]) -> str:
    if table.empty:
        raise UsageError(f"the block 'table: {query}' finds no result; save a run that has it")
    return render(table.drop(columns=[c for c in table.columns if c.replace("_", " ") in dropped]), "github")


def _main(query: str, wanted: Mapping[str, str], runs: Sequence[Run], key: Key, controls: bool) -> pd.DataFrame:
    details = details_of(runs)
    if not controls:
        own = {scope: copied(scope) is None for scope in details["scope"].unique()}
        details = details[[own[scope] for scope in details["scope"]]]
    chosen = details
    for column, values in wanted.items():
        if column not in chosen.columns:
            raise UsageError(f"the block 'table: {query}' chooses by {column!r}, which is no column of detail.csv")
        # The unpruned control stays beside whatever method is chosen.
        control = (chosen["criterion"] == NONE) & (
            column in ("criterion", "granularity", "scope", "schedule", "sparsity")
        )
        chosen = chosen[chosen[column].astype(str).isin(values.split(",")) | control]
    return main_table(chosen, *key)


def _claims(query: str, named: str | None, runs: Sequence[Run]) -> pd.DataFrame:
    table = summary_table(judge(runs), registered())
    chosen = list(table["claim"]) if named is None else named.split(",")
    missing = set(chosen) - set(table["claim"])
    if missing:
        raise UsageError(f"the block 'table: {query}' asks for claim {min(missing)!r}, which isn't registered")
    return table[table["claim"].isin(chosen)]


def _other(query: str, wanted: Mapping[str, str], runs: Sequence[Run], kind: str, key: Key) -> pd.DataFrame:
    kinds = kinds_of(runs)
    if kind not in kinds:
        raise UsageError(f"the block 'table: {query}' asks for kind {kind!r}; known: {', '.join(kinds)}")
    table = kinds[kind].get(key, pd.DataFrame())
    for column, values in wanted.items():
        name = column.replace("_", " ")
        if name not in table.columns:
            raise UsageError(f"the block 'table: {query}' chooses by {name!r}, which is no column of that table")
        table = table[table[name].isin([*values.split(","), *values.replace("_", " ").split(",")])]
    return table
