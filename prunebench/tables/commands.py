"""The command that measures a row or a run again: what stands there as labels, as options of `pytest benchmarks`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from prunebench import profiles
from prunebench.cell import NONE, Cell
from prunebench.recipe import Recipe
from prunebench.runs import Run
from prunebench.spec import Spec
from prunebench.tables.grid import backends_of, labels_of
from prunebench.untrusted import plain_line

_PRUNED_BY = {"criteria": "criterion", "granularities": "granularity", "scopes": "scope", "schedules": "schedule"}
_NO_BACKENDS = ("dense_channels_last", "csr_unpruned", "csr")  # arms that the networks question has by itself


def labels(cases: pd.DataFrame) -> pd.DataFrame:
    """What the grid's tables call each case, row by row."""
    return pd.DataFrame([labels_of(row) for row in cases.to_dict("records")], index=cases.index)


def grid_commands(cases: pd.DataFrame, named: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A command for every row of a grid's table, found by its labels; cases of the same machine and thread count."""
    shared = [name for name in named.columns if name in table.columns]
    places = named.groupby(shared, sort=False).indices
    wanted = list(table[shared].itertuples(index=False, name=None))
    commands = {key: _grid(cases.iloc[places[key]]) for key in dict.fromkeys(wanted)}
    return [commands[key] for key in wanted]


def _grid(cases: pd.DataFrame) -> str:
    first = cases.iloc[0]
    axes: dict[str, list[Any]] = {"datasets": [first["dataset"]], "models": [first["model"]]}
    if first["criterion"] != NONE:
        axes |= {option: [first[column]] for option, column in _PRUNED_BY.items()}
    axes |= {
        "sparsities": sorted(set(map(float, cases["sparsity"]))),
        "backends": backends_of(cases),
        "batch-sizes": sorted(set(cases["batch_size"])),
        "seeds": sorted(set(cases["seed"])),
        "threads": [first["threads"]],
    }
    recipe = recipe_option(Cell.from_dict(json.loads(first["identity"])))
    return _command("pytest benchmarks", axes | ({"recipe": [recipe]} if recipe else {}))


def recipe_option(cell: Cell) -> str | None:
    """The value of --recipe that gives a cell's recipe; None where it is the one by the rules.

    A recipe's name isn't relied on: a saved one may have been made from a recipe that was changed since.
    """
    default = profiles.recipe(cell.model, cell.dataset)
    if not _differences(cell.recipe, default):
        return None
    known = [n for n in profiles.recipe_names() if cell.recipe.name == n or cell.recipe.name.startswith(f"{n}_")]
    base = max(known, key=len, default="default")
    values = _differences(cell.recipe, profiles.recipe(cell.model, cell.dataset, base))
    return Spec(base, (), tuple(sorted(values.items()))).text


def _differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    names = [f.name for f in fields(Recipe) if f.name != "name"]
    return {name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(base, name)}


def layer_command(rows: Sequence[dict[str, Any]]) -> str:
    """For facts of one layer at one thread count."""
    first = rows[0]
    axes = {
        "models": first["networks"][:1],
        "sparsities": sorted({float(f["cell"]["sparsity"]) for f in rows}),
        "batch-sizes": sorted({f["batch_size"] for f in rows}),
        "threads": [first["threads"]],
    }
    chosen = shlex.quote(f"cell(layer='{first['layer']['id']}')")
    return f"{_command('pytest benchmarks/test_layers.py', axes)} -m {chosen}"


def network_command(facts: dict[str, Any]) -> str:
    """For facts of one network."""
    axes = {
        "models": [facts["cell"]["model"]],
        "sparsities": [float(facts["cell"]["sparsity"])],
        "batch-sizes": [facts["batch_size"]],
        "threads": [facts["threads"]],
    }
    peers = [name for name in (facts["arms"] or {}) if name not in _NO_BACKENDS]
    return _command("pytest benchmarks/test_networks.py", axes | ({"backends": peers} if peers else {}))


def run_commands(run: Run) -> list[str]:
    """The commands that measure a saved run's cases again: one for each recipe, question and thread count.

    An axis has every value that occurs: a run with holes is measured without them.
    """
    grid: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    recipes: dict[str, str | None] = {}
    for facts in run.facts:
        cell = facts["cell"]
        key = json.dumps([cell["recipe"], cell["model"], cell["dataset"]], sort_keys=True)
        if key not in recipes:
            recipes[key] = recipe_option(Cell.from_dict(cell))
        grid.setdefault((recipes[key], facts["threads"]), []).append(facts)
    asked: dict[str, list[dict[str, Any]]] = {}
    for facts in run.answers:
        asked.setdefault(facts["question"], []).append(facts)
    commands = [_run_of_grid(key[0], own) for key, own in grid.items()]
    commands += [command for question, own in asked.items() for command in _run_of(question, own)]
    return [f"{one} --benchmark-save={shlex.quote(plain_line(run.name))}" for one in commands]


def _run_of_grid(recipe: str | None, facts: Sequence[dict[str, Any]]) -> str:
    cells = [f["cell"] for f in facts]
    pruned = [cell for cell in cells if cell["criterion"] != NONE]
    axes = {"datasets": _values(cells, "dataset"), "models": _values(cells, "model")}
    for option, name in _PRUNED_BY.items() if pruned else ():
        axes[option] = _values(pruned, name)
    axes |= {
        "sparsities": sorted(map(float, _values(pruned or cells, "sparsity"))),
        "backends": _values(facts, "backend"),
        "batch-sizes": sorted(_values(facts, "batch_size")),
        "seeds": sorted(_values(cells, "seed")),
        "threads": _values(facts, "threads"),
    }
    return _command("pytest benchmarks", axes | ({"recipe": [recipe]} if recipe else {}))


def _run_of(question: str, facts: Sequence[dict[str, Any]]) -> list[str]:
    """One command for every set of models, batch sizes, sparsities and thread counts that is measured as a whole."""
    start = f"pytest benchmarks/test_{plain_line(question)}.py"
    if question not in ("layers", "networks"):  # its cases are few, and measured together
        return [_command(start, {"threads": sorted(_values(facts, "threads"))})]
    places = {(_network(f), f["threads"], f["batch_size"], float(f["cell"]["sparsity"])) for f in facts}
    models = list(dict.fromkeys(map(_network, facts)))
    found: dict[tuple[Any, ...], list[str]] = {}
    for model in models:
        found.setdefault(tuple(sorted(p[1:] for p in places if p[0] == model)), []).append(model)
    commands = []
    for own, names in found.items():
        for (threads, batches), sparsities in _products(own):
            axes: dict[str, list[Any]] = {"models": names, "sparsities": sparsities}
            commands.append(_command(start, {**axes, "batch-sizes": batches, "threads": threads}))
    return commands


def _network(facts: Mapping[str, Any]) -> str:
    """A layer is asked for by the first network that has it."""
    return str((facts.get("networks") or [facts["cell"]["model"]])[0])


def _products(places: Iterable[tuple[int, int, float]]) -> list[tuple[tuple[list[int], list[int]], list[float]]]:
    """((thread counts, batch sizes), sparsities) whose products are exactly these (threads, batch size, sparsity)."""
    by_place: dict[tuple[int, int], list[float]] = {}
    for threads, batch, sparsity in places:
        by_place.setdefault((threads, batch), []).append(sparsity)
    by_threads: dict[int, dict[tuple[float, ...], list[int]]] = {}
    for (threads, batch), sparsities in by_place.items():
        by_threads.setdefault(threads, {}).setdefault(tuple(sparsities), []).append(batch)
    together: dict[tuple[Any, ...], list[int]] = {}
    for threads, own in by_threads.items():
        for measured, batches in own.items():
            together.setdefault((tuple(batches), measured), []).append(threads)
    return [((threads, list(batches)), list(s)) for (batches, s), threads in together.items()]


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))


def _command(start: str, axes: Mapping[str, Iterable[Any]]) -> str:
    # Quoted: names come from files that anybody may have written, and a reader pastes this into a shell.
    options = [f"--{option} {shlex.quote(plain_line(','.join(map(str, values))))}" for option, values in axes.items()]
    return " ".join([start, *options])
