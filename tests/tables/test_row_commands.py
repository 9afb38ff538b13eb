"""The command behind a row, read as pytest would read it, spans exactly the cases of that row."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

from saved_facts import CONTROL, PRUNED, facts, run

from prunebench import profiles, questions, registry
from prunebench.cell import Cell
from prunebench.controls import twins
from prunebench.facts import repetition_of
from prunebench.runs import load_runs
from prunebench.tables.commands import grid_commands, labels, layer_command, network_command, recipe_option
from prunebench.tables.files import kinds_of
from prunebench.tables.grid import detail, frame, main_table
from prunebench.tables.layers import layer_rows
from prunebench.tables.networks import network_rows

ROOT = Path(__file__).parents[2]


def options(command):
    """(file, {option: value}) of a command as the shell splits it."""
    name, where, *rest = shlex.split(command)
    assert name == "pytest"
    return where, {flag.lstrip("-").replace("-", "_"): value for flag, value in zip(rest[::2], rest[1::2], strict=True)}


def anonymous(cell):
    return replace(cell, recipe=replace(cell.recipe, name=""))


def cases_of(command):
    where, given = options(command)
    assert where == "benchmarks"
    threads = given.pop("threads")
    plan = profiles.plan(None, given)
    return {(anonymous(c.cell), c.backend, c.batch_size, threads) for c in plan.cases()}


def check_rows(cases, table):
    """Every command spans the cases of its row, and besides them only the control and what completes the product."""
    named = labels(cases)
    shared = [name for name in named if name in table]
    assert len(shared) >= 4
    for (_, row), command in zip(table.iterrows(), grid_commands(cases, named, table), strict=True):
        own = cases[(named[shared] == row[shared]).all(axis=1)]
        assert len(own)
        wanted = {
            (anonymous(Cell.from_dict(json.loads(c.identity))), c.backend, c.batch_size, str(c.threads))
            for c in own.itertuples()
        }
        found = cases_of(command)
        assert wanted <= found
        own_cells = {repetition_of(cell) for cell, *_ in wanted}
        assert all(cell.is_control or repetition_of(cell) in own_cells for cell, *_ in found - wanted)
        for place in (1, 2, 3):  # backends, batch sizes, threads
            assert {case[place] for case in found} == {case[place] for case in wanted}


def test_commands_of_the_committed_grid():
    runs = load_runs(ROOT / "results" / "runs")
    cases, kinds = frame(runs), kinds_of(runs)
    for kind in ("main", "bytes", "breakeven-networks"):
        assert kinds[kind]
        for (machine, threads), table in kinds[kind].items():
            check_rows(cases[(cases["machine"] == machine) & (cases["threads"] == threads)], table)


def test_commands_of_unusual_cells():
    photos = replace(PRUNED, dataset="imagefolder:my photos/$(touch hacked)")
    names = {axis: registry.check(group, text) for axis, group, text in (
        ("criterion", "criteria", "lp:p=3"), ("granularity", "granularities", "n_m:n=2:m=4"),
        ("scope", "scopes", "global:first=dense"))}  # fmt: skip
    n_m = replace(PRUNED, sparsity=0.5, **names)
    brief = replace(PRUNED, recipe=profiles.recipe("lenet5", "digits", epochs=3))
    rewound = replace(PRUNED, recipe=profiles.recipe("lenet5", "digits", "default:rewind=weights:learning_rate=1e-5"))
    for cell in (photos, n_m, brief, rewound, *twins(rewound), replace(PRUNED, sparsity=0.9167), CONTROL):
        cases = frame([run(*(facts(replace(cell, seed=seed), threads=2) for seed in (0, 3)))])
        check_rows(cases, main_table(detail(cases), "aaaaaaaaaa", 2))


def test_a_recipe_is_named_where_the_rules_give_another_and_by_what_differs():
    usual = profiles.recipe("lenet5", "digits")
    cell = Cell("digits", "lenet5", recipe=usual)
    assert recipe_option(cell) is None
    assert recipe_option(replace(cell, recipe=replace(usual, name="<script>"))) is None
    assert (
        recipe_option(replace(cell, recipe=replace(usual, epochs=2, name=f"{usual.name}_e2")))
        == f"{usual.name}:epochs=2"
    )
    assert recipe_option(replace(cell, recipe=profiles.recipe("x", "x", "lenet"))) == "lenet"
    assert recipe_option(replace(cell, recipe=replace(usual, epochs=2, name="gone"))) == "default:epochs=2"


def test_commands_of_the_committed_layers_and_networks():
    runs = load_runs(ROOT / "results" / "runs")
    for f in layer_rows(runs)[::40]:
        where, given = options(layer_command([f]))
        assert where == "benchmarks/test_layers.py"
        [expression] = [given.pop("m")]
        named = [c for c in questions.layers(None, given).cases if expression == f"cell(layer='{c.layer.id}')"]
        found = [(c.layer.id, c.sparsity, c.batch_size, c.threads) for c in named]
        assert found == [(f["layer"]["id"], f["cell"]["sparsity"], f["batch_size"], f["threads"])]
    for f in network_rows(runs):
        where, given = options(network_command(f))
        assert where == "benchmarks/test_networks.py"
        [case] = questions.networks(None, given).cases
        assert (case.model, case.sparsity, case.batch_size) == (
            f["cell"]["model"],
            f["cell"]["sparsity"],
            f["batch_size"],
        )
        assert set(case.peers) <= {*f["arms"], "dense"}


def test_a_shell_runs_nothing_of_a_name():
    cell = replace(PRUNED, dataset="imagefolder:`touch hacked`;$(touch hacked)")
    cases = frame([run(facts(cell))])
    [command] = grid_commands(cases, labels(cases), main_table(detail(cases), "aaaaaaaaaa", 1))
    assert "--datasets 'imagefolder:`touch hacked`;$(touch hacked)' --models" in command
