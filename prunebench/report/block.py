"""A table of the page as a value: headings with what sorting and filtering need to know, and rows of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

COMMAND = "measure again"
_COMMANDS = (COMMAND, "what would decide")
IN_PAGE, IN_TUCKED = 1000, 100  # rows that the page holds as elements; the others the script shows
_CHOSEN = ("dataset", "model", "recipe", "pruned by", "criterion", "scope", "schedule", "sparsity", "batch",
           "batch_size", "backend", "arm", "layer", "status", "verdict", "claim", "machine", "threads", "of",
           "over")  # fmt: skip
_LABELS = {*_CHOSEN, "accuracy %", "nonzeros", "bytes on disk", "over"}


@dataclass(frozen=True)
class Column:
    """A heading; `by`: what sorting reads (`×`: the ratio in a text); `choose`: its values make a list to filter by."""

    name: str
    by: str = ""
    choose: bool = False
    command: bool = False


@dataclass(frozen=True)
class Block:
    """One table with its heading; a tucked one opens on demand."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: list[list[str]]
    tucked: bool = False

    @property
    def inside(self) -> list[list[str]]:
        """The rows that can be read without the script."""
        return self.rows[: IN_TUCKED if self.tucked else IN_PAGE]

    @property
    def rest(self) -> list[list[str]]:
        """The rows that only the script shows."""
        return self.rows[len(self.inside) :]


def block_of(id: str, title: str, table: pd.DataFrame, kind: str = "", tucked: bool = False) -> Block:
    columns = tuple(
        Column(
            name,
            "×" if kind == "main" and name not in (*_LABELS, COMMAND) else "",
            name in _CHOSEN,
            name in _COMMANDS,
        )
        for name in map(str, table.columns)
    )
    return Block(id, title, columns, texts(table), tucked)


def texts(table: pd.DataFrame) -> list[list[str]]:
    """Rows of texts; what is missing is empty, numbers have the digits of the CSV files."""
    shown = [[_text(value) for value in table[column]] for column in table.columns]
    return [list(row) for row in zip(*shown, strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def flat(value: Any) -> str:
    """Any JSON value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {flat(v)}" for k, v in sorted(value.items(), key=str))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(flat, value))
    return "–" if value is None else _text(value)
