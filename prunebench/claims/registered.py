"""The claims as registered in claims.toml: what is claimed, of what, and which rule decides."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Field of a cell or of a case -> the scope's list of what it may be.
OF_CELL = {"dataset": "datasets", "model": "models", "criterion": "criteria", "granularity": "granularities",
         "scope": "scopes", "schedule": "schedules"}  # fmt: skip
_CASE = {"backend": "backends", "batch_size": "batch_sizes", "threads": "threads"}


@dataclass(frozen=True)
class Scope:
    """What a claim is about; an empty list allows anything. `seeds`: how many repetitions a verdict needs at least."""

    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    granularities: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    sparsities: tuple[float, ...] = ()
    backends: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    recipes: tuple[str, ...] = ()
    seeds: int = 1

    def has_cell(self, cell: Mapping[str, Any]) -> bool:
        """True where a cell, as facts hold it, is one that the claim is about."""
        for name, allowed in self._of_cell:
            if cell.get(name) not in allowed:
                return False
        if self.recipes and (cell.get("recipe") or {}).get("name") not in self.recipes:
            return False
        return self.has_sparsity(cell["sparsity"])

    def has_sparsity(self, sparsity: float) -> bool:
        return not self.sparsities or any(math.isclose(sparsity, own) for own in self.sparsities)

    def has_case(self, facts: Mapping[str, Any]) -> bool:
        """True where backend, batch size and threads are the claim's too."""
        return all(facts[name] in allowed for name, allowed in self._of_case)

    # What isn't bounded is left out: every claim asks every case.
    @cached_property
    def _of_cell(self) -> list[tuple[str, tuple[Any, ...]]]:
        return [(one, allowed) for one, many in OF_CELL.items() if (allowed := getattr(self, many))]

    @cached_property
    def _of_case(self) -> list[tuple[str, tuple[Any, ...]]]:
        return [(one, allowed) for one, many in _CASE.items() if (allowed := getattr(self, many))]


@dataclass(frozen=True)
class Claim:
    """One claim; `low` and `high` bound what its estimate must be, as direction and its number say."""

    id: str
    statement: str
    article: str
    rule: str
    direction: str
    low: float
    high: float
    scope: Scope
    alpha: float = 0.05
    decides: str = "all"
    source: str = "grid"
    quantity: str = ""
    against: str = ""
    axis: str = ""
    first: str = ""
    second: str = ""
    first_backend: str = ""
    second_backend: str = ""

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Claim:
        """A claim from its table in the file; ValueError or KeyError where the table can't be one."""
        low, high = _bounds(entry)
        given = {k: v for k, v in entry.items() if k not in ("margin", "bound", "range", "scope")}
        lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["scope"].items()}
        unknown = set(given) - {f.name for f in fields(cls)} | set(lists) - {f.name for f in fields(Scope)}
        if unknown or given.get("decides", "all") not in ("all", "any"):
            raise ValueError(f"claim {entry['id']!r} can't have {sorted(unknown) or given['decides']!r}")
        return cls(**given, low=low, high=high, scope=Scope(**lists))


def _bounds(entry: Mapping[str, Any]) -> tuple[float, float]:
    direction = entry["direction"]
    if direction == "equal":
        return -entry["margin"], entry["margin"]
    if direction == "within":
        low, high = entry["range"]
        return low, high
    if direction in ("at_least", "reached"):
        return entry["bound"], math.inf
    if direction == "at_most":
        return -math.inf, entry["bound"]
    raise ValueError(f"claim {entry['id']!r} has direction {direction!r}")


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent.parent / "claims.toml").read_text())


@cache
def registered() -> tuple[Claim, ...]:
    """Every claim, in the file's order."""
    return tuple(Claim.from_dict(entry) for entry in _file()["claims"])


def rule_text(rule: str) -> str:
    """How a rule comes to its estimate, in words."""
    return str(_file()["rules"][rule])
