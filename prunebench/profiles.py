"""Profiles and recipes, read from profiles.toml, and the grid that a profile with its overrides spans."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from prunebench import cell as cells
from prunebench import granularities
from prunebench.cell import Case, Cell, Recipe, check_sparsity
from prunebench.errors import UsageError, unknown
from prunebench.models.names import check_model
from prunebench.registry import check
from prunebench.spec import Spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Option name -> registry group; the lists that span a grid, in the order of an id.
NAMED = {
    "datasets": "datasets",
    "models": "models",
    "criteria": "criteria",
    "granularities": "granularities",
    "scopes": "scopes",
    "schedules": "schedules",
    "backends": "backends",
}
LISTS = (*NAMED, "sparsities", "batch_sizes", "seeds")
DEFAULT_PROFILE = "quick"


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "profiles.toml").read_text())


def names() -> list[str]:
    return list(_file()["profiles"])


def question(name: str, profile: str | None = None) -> dict[str, Any]:
    """The settings of a question with a file of its own (`layers`, `networks`) under a profile; raises UsageError."""
    profile = profile or DEFAULT_PROFILE
    if profile not in _file()["profiles"]:
        raise unknown("profile", profile, names())
    return dict(_file()["questions"][name][profile])


def recipe_names() -> list[str]:
    return list(_file()["recipes"])


def recipe(model: str, dataset: str, name: str | None = None, **overrides: Any) -> Recipe:
    """The recipe for a model on a dataset: by name, else by the rules of profiles.toml; None overrides are ignored."""
    if name is None:
        subject = f"{Spec.parse(model).name}-{Spec.parse(dataset).name}"
        name = next(rule["recipe"] for rule in _file()["choose"] if fnmatchcase(subject, rule["pattern"]))
    elif name not in _file()["recipes"]:
        raise unknown("recipe", name, recipe_names())
    chosen = Recipe(name=name, **_file()["recipes"][name])
    changes = {k: v for k, v in overrides.items() if v is not None and v != getattr(chosen, k)}
    # An overridden recipe must not pass for the named one in a table.
    suffix = "".join(f"_{'e' if k == 'epochs' else 'f'}{v}" for k, v in sorted(changes.items()))
    return replace(chosen, name=name + suffix, **changes)


@dataclass(frozen=True)
class Plan:
    """A validated grid with what it needs to run: cells, backends, batch sizes and the time per measurement."""

    profile: str
    cells: tuple[Cell, ...]
    backends: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    timing_seconds: float

    def cases(self) -> list[Case]:
        """Every case in a fixed order: a cell's backends and batch sizes together."""
        return [Case(c, b, n) for c in self.cells for b in self.backends for n in self.batch_sizes]


def plan(profile: str | None = None, overrides: Mapping[str, Any] | None = None) -> Plan:
    """The grid of a profile with overrides (option name -> comma-separated text or list); raises UsageError."""
    profile = profile or DEFAULT_PROFILE
    if profile not in _file()["profiles"]:
        raise unknown("profile", profile, names())
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    settings = {**_file()["profiles"][profile], **given}
    axes = {option: items(option, settings[option]) for option in LISTS}
    for option, group in NAMED.items():
        axes[option] = cells.unique(_check_name(group, text) for text in axes[option])
    sparsities = cells.unique(check_sparsity(s) for s in axes.pop("sparsities"))
    batch_sizes = cells.unique(whole_number("batch size", b, 1) for b in axes.pop("batch_sizes"))
    seeds = cells.unique(whole_number("seed", s, 0) for s in axes.pop("seeds"))
    backends = axes.pop("backends")
    lengths = {
        "epochs": _optional_integer("epochs", settings.get("epochs"), 1),
        "fine_tune_epochs": _optional_integer("fine-tune epochs", settings.get("fine_tune_epochs"), 0),
    }
    found = cells.grid(
        **axes,
        sparsities=sparsities,
        seeds=seeds,
        recipe=lambda model, dataset: recipe(model, dataset, settings.get("recipe"), **lengths),
    )
    fitting = _fitting(axes["granularities"], sparsities)
    kept = tuple(c for c in found if c.is_control or c.sparsity in fitting[c.granularity])
    return Plan(profile, kept, tuple(backends), tuple(batch_sizes), float(settings["timing_seconds"]))


def _fitting(named: Iterable[str], sparsities: Iterable[float]) -> dict[str, list[float]]:
    # A granularity with a sparsity of its own takes part at that one; UsageError where it isn't among those asked for.
    asked = [s for s in sparsities if s > 0]
    fitting = {}
    for granularity in named:
        only = granularities.only_sparsity(granularity)
        fitting[granularity] = [s for s in asked if only is None or granularities.fits(s, only)]
        if asked and not fitting[granularity]:
            granularities.reachable(granularity, asked[0])
    return fitting


def items(option: str, value: str | Iterable[Any]) -> list[Any]:
    """The items of a list option, given as comma-separated text or as a list; UsageError where one is empty."""
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    flag = f"--{option.replace('_', '-')}"
    if not items or items == [""]:
        raise UsageError(f"{flag} is empty; give a comma-separated list")
    if "" in items:
        raise UsageError(f"{flag} {value!r} has an empty item; separate the items by single commas")
    return items


def _check_name(group: str, text: str) -> str:
    return check_model(text) if group == "models" else check(group, text)


def whole_number(what: str, value: Any, low: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise UsageError(f"{what} {value!r} is not a whole number; give one of at least {low}") from None
    if number < low:
        raise UsageError(f"{what} {value} is too small; it must be at least {low}")
    return number


def _optional_integer(what: str, value: Any, low: int) -> int | None:
    return None if value is None else whole_number(what, value, low)
