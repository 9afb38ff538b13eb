"""The experiment as frozen values: recipe, cell, case; their ids and their identity.

A field added later with a default leaves old identities alone, because defaults are left out of the hash.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from functools import lru_cache
from typing import Any

from prunebench.errors import UsageError
from prunebench.recipe import Recipe
from prunebench.spec import Spec

NONE = "none"


@dataclass(frozen=True)
class Cell:
    """One point of the grid; sparsity is the fraction of prunable weights that are zero, in [0, 1)."""

    dataset: str
    model: str
    criterion: str = NONE
    granularity: str = NONE
    scope: str = NONE
    schedule: str = NONE
    sparsity: float = 0.0
    seed: int = 0
    recipe: Recipe = Recipe()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.recipe.regrow == "none" or self.is_control:
            return
        for axis, only in (("granularity", "weight"), ("schedule", "one_shot")):
            if getattr(self, axis) != only:
                raise UsageError(
                    f"recipe {self.recipe.name!r} trains sparse from the start (regrow={self.recipe.regrow}), which "
                    f"{axis} {getattr(self, axis)!r} can't; use {only}"
                )

    @property
    def is_control(self) -> bool:
        """True for the unpruned control."""
        return self.criterion == NONE

    @property
    def control(self) -> Cell:
        """The unpruned control that this cell is compared with."""
        return Cell(self.dataset, self.model, seed=self.seed, recipe=self.recipe)

    @property
    def id(self) -> str:
        """Readable and unique within a grid: `lenet5-mnist-l1-weight-global-agp-s900-seed0`."""
        words = _slugs(self.model, self.dataset, self.criterion, self.granularity, self.scope, self.schedule)
        return f"{words}-s{per_mille(self.sparsity)}-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cell:
        given = {k: v for k, v in data["recipe"].items() if k in _RECIPE}
        try:
            recipe = _recipe(**given)
        except TypeError:  # a list, say, that can't be looked up: its own message says what it should be
            recipe = Recipe(**given)
        return cls(**{**{name: data[name] for name in _CELL if name in data}, "recipe": recipe})


_CELL = tuple(f.name for f in fields(Cell))
_RECIPE = frozenset(f.name for f in fields(Recipe))


@lru_cache(maxsize=256, typed=True)  # a saved run repeats a few recipes in each of its facts
def _recipe(**values: Any) -> Recipe:
    return Recipe(**values)


@dataclass(frozen=True)
class Case:
    """A cell run by one backend at one batch size: one pytest case."""

    cell: Cell
    backend: str
    batch_size: int

    @property
    def id(self) -> str:
        return f"{self.cell.id}-{_slugs(self.backend)}-b{self.batch_size}"

    @property
    def group(self) -> str:
        """The heading under which pytest-benchmark lists it."""
        return f"{self.cell.model}-{self.cell.dataset}-b{self.batch_size}"

    def marks(self) -> dict[str, Any]:
        """Keyword values for `-m "cell(criterion='l1', sparsity=900)"`; sparsity in per mille."""
        c, mille = self.cell, per_mille(self.cell.sparsity)
        return {
            "dataset": c.dataset,
            "model": c.model,
            "criterion": c.criterion,
            "granularity": c.granularity,
            "scope": c.scope,
            "schedule": c.schedule,
            "sparsity": int(mille) if mille.isdigit() else mille,
            "seed": c.seed,
            "recipe": c.recipe.name,
            "backend": self.backend,
            "batch": self.batch_size,
            "batch_size": self.batch_size,
        }


@lru_cache(maxsize=65536)  # a grid repeats few names in a hundred thousand ids
def _slugs(*names: str) -> str:
    return "-".join(Spec.parse(name).slug for name in names)


@lru_cache(maxsize=65536)
def per_mille(sparsity: float) -> str:
    """`900` for 0.9, `000` for 0, `916_7` for 0.9167: digits that `-k` can take."""
    value = Decimal(repr(float(sparsity))) * 1000
    whole, _, fraction = f"{value.normalize():f}".partition(".")
    return whole.zfill(3) + (f"_{fraction}" if fraction else "")


def check_sparsity(value: Any) -> float:
    """The value as a float in [0, 1); UsageError otherwise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"sparsity {value!r} is not a number; give a fraction in [0, 1), for example 0.9") from None
    if not 0.0 <= number < 1.0:
        raise UsageError(f"sparsity {value} is outside [0, 1); it is the fraction of weights removed, for example 0.9")
    return number


def grid(
    *,
    datasets: Sequence[str],
    models: Sequence[str],
    criteria: Sequence[str],
    granularities: Sequence[str],
    scopes: Sequence[str],
    schedules: Sequence[str],
    sparsities: Sequence[float],
    seeds: Sequence[int],
    recipe: Any,
) -> Iterator[Cell]:
    """All cells in a fixed order, each dense parent's control first; `recipe(model, dataset)` gives the recipe."""
    for data, net, seed in itertools.product(unique(datasets), unique(models), unique(seeds)):
        chosen = recipe(net, data)
        yield Cell(data, net, seed=seed, recipe=chosen)
        for axes in itertools.product(*map(unique, (criteria, granularities, scopes, schedules, sparsities))):
            if axes[-1] > 0:
                criterion, granularity, scope, schedule, sparsity = axes
                yield Cell(data, net, criterion, granularity, scope, schedule, sparsity, seed, chosen)


def unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def digest(fields_: dict[str, Any]) -> str:
    """Hash of canonical fields: 32 hex digits of SHA-256 over sorted JSON; None values are left out."""
    kept = {k: v for k, v in fields_.items() if v is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_seed(seed: int, *purpose: str) -> int:
    """A 63-bit seed for one purpose, so that data order, masks and initial weights never share a stream."""
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *purpose]).encode()).digest()[:8], "big") >> 1
