"""results/README.md: a row a claim with how much, a row a run, and commands that span exactly what was measured."""

import shlex
from pathlib import Path

import pytest
from saved_facts import CONTROL, PRUNED, facts, grid, run

from prunebench import profiles, questions
from prunebench.claims import registered
from prunebench.runs import load_runs
from prunebench.tables.commands import run_commands
from prunebench.tables.front import front_page, write_front

ROOT = Path(__file__).parents[2]


def options(command):
    name, where, *rest = shlex.split(command)
    assert name == "pytest"
    *flags, save = rest
    given = {flag.lstrip("-").replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    return where, given, save


def test_the_page_names_every_claim_and_every_run():
    page = front_page([run(*grid()), run(*grid(), name="cut", complete=False, time="2024-02-03T00:00:00")])
    for one in registered():
        assert f"[{one.id}](claims.md#{one.id})" in page
    [quick] = [line for line in page.splitlines() if line.startswith("| quick ")]
    [cut] = [line for line in page.splitlines() if line.startswith("| cut ")]
    assert [cell.strip() for cell in quick.strip("|").split("|")] == ["quick", "6", "aaaaaaaaaa", "2024-01-01", "yes"]
    assert [cell.strip() for cell in cut.strip("|").split("|")][3:] == ["2024-02-03", "cut off"]


def test_a_page_that_is_somebody_elses_is_left_alone(tmp_path):
    own = tmp_path / "README.md"
    own.write_text("# Results\n\nMy notes.\n")
    assert write_front([run(*grid())], tmp_path) == []
    assert own.read_text() == "# Results\n\nMy notes.\n"
    own.unlink()
    assert write_front([run(*grid())], tmp_path) == [own]
    first = own.read_bytes()
    assert write_front([run(*grid()), run(*grid(), name="more")], tmp_path) == [own]
    assert own.read_bytes() != first


def test_a_run_of_several_recipes_and_thread_counts_takes_a_command_each():
    rows = [facts(CONTROL), facts(PRUNED), facts(PRUNED, threads=2)]
    found = [options(one) for one in run_commands(run(*rows, name="some"))]
    assert [(where, given["threads"], save) for where, given, save in found] == [
        ("benchmarks", "1", "--benchmark-save=some"),
        ("benchmarks", "2", "--benchmark-save=some"),
    ]
    assert {given["recipe"] for _, given, _ in found} == {found[0][1]["recipe"]}
    only = run_commands(run(facts(CONTROL), name="dense"))
    assert len(only) == 1
    assert "--criteria" not in only[0]
    assert "--sparsities 0.0" in only[0]


@pytest.mark.parametrize("one", load_runs(ROOT / "results" / "runs"), ids=lambda one: one.name)
def test_commands_of_a_committed_run_span_its_cases(one):
    wanted = {(f["cell"]["model"], f["cell"]["dataset"], f["cell"]["criterion"], f["cell"]["schedule"],
               f["cell"]["sparsity"], f["cell"]["seed"], f["backend"], f["batch_size"]) for f in one.facts}  # fmt: skip
    layers = {(f["layer"]["id"], f["cell"]["sparsity"], f["batch_size"]) for f in one.answers
              if f["question"] == "layers"}  # fmt: skip
    networks = {(f["cell"]["model"], f["batch_size"], f["threads"]) for f in one.answers if f["question"] == "networks"}
    for command in run_commands(one):
        where, given, save = options(command)
        assert save == f"--benchmark-save={one.name}"
        threads = [int(n) for n in given["threads"].split(",")]
        if where == "benchmarks":
            del given["threads"]
            wanted -= {(c.cell.model, c.cell.dataset, c.cell.criterion, c.cell.schedule, c.cell.sparsity, c.cell.seed,
                        c.backend, c.batch_size) for c in profiles.plan(None, given).cases()}  # fmt: skip
        elif where.endswith("layers.py"):
            again = {(c.layer.id, c.sparsity, c.batch_size) for c in questions.layers(None, given).cases}
            assert again <= layers, "measured twice, or never before"
            layers -= again
        elif where.endswith("networks.py"):
            again = {(c.model, c.batch_size, n) for c in questions.networks(None, given).cases for n in threads}
            assert again <= networks, "measured twice, or never before"
            networks -= again
        else:
            assert where == "benchmarks/test_claims.py"
    assert not wanted
    assert not layers
    assert not networks
