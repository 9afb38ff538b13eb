"""What single values of saved facts can be: anybody may have written them. Checks raise ValueError."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

MOST = 1 << 63  # of any number: what a column of a table holds
MOST_WORDS = 4000  # of any text: a traceback's last line may be long
_NAMES = 200


def numbers(facts: Mapping[str, Any], names: Iterable[str], needed: bool = False) -> None:
    """Finite numbers of at least 0, or null where they aren't needed. KeyError: one is missing."""
    for name in names:
        value = facts[name]
        if value is None and not needed:
            continue
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not right or not 0 <= value < MOST or not math.isfinite(value):
            raise ValueError(_wrong(name, value))


def whole(facts: Mapping[str, Any], names: Iterable[str], least: int = 0) -> None:
    """Whole numbers of at least `least`. KeyError: one is missing."""
    for name in names:
        value = facts[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < MOST:
            raise ValueError(_wrong(name, value))


def lists(facts: Mapping[str, Any], names: Iterable[str]) -> None:
    """Lists of finite numbers above 0, or null, or missing."""
    for name in names:
        values = facts.get(name)
        if values is None:
            continue
        if not isinstance(values, list):
            raise ValueError(_wrong(name, values))
        for value in values:
            numbers({name: value}, (name,), needed=True)
            if value == 0:
                raise ValueError(_wrong(name, value))


def texts(facts: Mapping[str, Any], names: Iterable[str], needed: bool = False, most: int = MOST_WORDS) -> None:
    """Texts of a length that a table can show, or null or missing where they aren't needed."""
    for name in names:
        value = facts[name] if needed else facts.get(name)
        if value is None and not needed:
            continue
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(_wrong(name, value))


def table(value: Any, name: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise ValueError(_wrong(name, value))
    return value


def cell(value: Any, of_the_grid: bool) -> None:
    """A cell as facts hold it: names, sparsity up to 1, seed; a question's may hold less than the grid's."""
    found = table(value, "cell")
    names = ("dataset", "criterion", "granularity", "scope", "schedule")
    texts(found, ("model",), needed=True, most=_NAMES)
    texts(found, names, needed=of_the_grid, most=_NAMES)
    numbers(found, ("sparsity",), needed=True)
    if found["sparsity"] > 1:
        raise ValueError(_wrong("sparsity", found["sparsity"]))
    if of_the_grid or "seed" in found:
        whole(found, ("seed",))
    if of_the_grid or found.get("recipe") is not None:
        texts(table(found["recipe"], "recipe"), ("name",), needed=True, most=_NAMES)


def machine(value: Any) -> dict[str, Any]:
    """The machine of a run."""
    found = table(value, "the machine")
    texts(found, ("id", "cpu", "architecture", "system"), most=_NAMES)
    for name in ("engine", "versions"):
        inner = table(found.get(name) or {}, name)
        texts(inner, inner, most=_NAMES)
    for name in ("cores", "memory_bytes"):
        if found.get(name) is not None:
            whole(found, (name,))
    return found


def _wrong(name: str, value: Any) -> str:
    return f"{name} is {reprlib.repr(value)}"
