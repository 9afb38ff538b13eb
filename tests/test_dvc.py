"""DVC's stages are the Makefile's targets, and both read profile and seeds from params.yaml."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from running import ROOT, command

from prunebench import profiles

TOOLS = ("python", "prunebench")
# Stands for both tools: notes what it was called with; a benchmark run saves a file, as pytest would.
_STANDIN = """#!/bin/sh
echo "{name} $*" >> {log}
case "$*" in *benchmark-save*) mkdir -p results/runs; echo "$*" > results/runs/$$.json;; esac
"""


def read_yaml(text: str):
    """The little YAML that dvc.yaml is written in: mappings, lists and plain words, by indentation."""
    lines = [line for line in re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE).splitlines() if line.strip()]
    found, rest = block(lines, 0)
    assert not rest, rest
    return found


def block(lines, indent):
    found = [] if lines[0].lstrip().startswith("- ") else {}
    while lines and len(lines[0]) - len(lines[0].lstrip()) == indent:
        line, lines = lines[0].strip(), lines[1:]
        deeper = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        key, colon, value = line.removeprefix("- ").partition(":")
        if value or not colon:
            inner = value.strip()
        else:
            assert deeper > indent, line
            inner, lines = block(lines, deeper)
        if isinstance(found, list):
            found.append({key: inner} if colon else key)
        else:
            found[key] = inner
    return found, lines


def stages():
    return read_yaml((ROOT / "dvc.yaml").read_text())["stages"]


def params():
    return read_yaml((ROOT / "params.yaml").read_text())


def targets():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def paths(entries):
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_every_stage_is_a_target_of_the_makefile():
    assert list(stages()) == ["build", "bench", "tables"]
    for name, stage in stages().items():
        make, target, *_ = stage["cmd"].split()
        assert make == "make", name
        assert target in targets(), name


def test_what_a_stage_passes_on_is_a_parameter_and_a_variable_of_the_makefile():
    used = set()
    for stage in stages().values():
        given = dict(word.split("=") for word in stage["cmd"].split()[2:])
        for variable, value in given.items():
            assert re.search(rf"^{variable} *\?=", (ROOT / "Makefile").read_text(), re.MULTILINE), variable
            assert value.startswith("${"), "a value of its own beside params.yaml"
        names = [value.strip("${}") for value in given.values()]
        assert names == stage.get("params", [])
        used |= set(names)
    assert used == set(params())


def test_the_parameters_can_be_run():
    assert params()["profile"] in profiles.names()
    if params()["seeds"] != "default":
        profiles.plan(params()["profile"], {"seeds": params()["seeds"]})


def test_inputs_exist_and_each_output_feeds_the_next_stage():
    made = set()
    for name, stage in stages().items():
        for path in paths(stage["deps"]):
            assert path in made or (ROOT / path).exists(), (name, path)
        if made:
            assert made & set(paths(stage["deps"])), f"{name} would not wait for the stage before it"
        made = {*made, *paths(stage["outs"])}


def test_dvc_never_removes_or_caches_what_git_holds():
    for stage in stages().values():
        for out in stage["outs"]:
            [options] = out.values()
            assert options == {"cache": "false", "persist": "true"}


def dry_run(folder: Path, *given: str) -> list[str]:
    # Under `make test` an outer make would hand its own variables on.
    done = command("make", "--no-print-directory", "-n", "bench", *given, cwd=folder, MAKEFLAGS="")
    assert done.returncode == 0, done.stderr
    return [line.split("; status")[0] for line in done.stdout.splitlines() if "pytest benchmarks" in line]


@pytest.mark.parametrize(
    ("profile", "seeds", "expected"),
    [
        ("quick", "default", "--profile quick --benchmark-save=quick"),
        ("smoke", "0,1", "--profile smoke --seeds 0,1 --benchmark-save=smoke"),
        ("paper   # all of it", "3   # one", "--profile paper --seeds 3 --benchmark-save=paper"),
    ],
)
def test_make_alone_runs_what_the_stage_runs(tmp_path, profile, seeds, expected):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "params.yaml").write_text(f"# said once\nprofile: {profile}\nseeds: {seeds}\n")
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).touch()
    values = read_yaml((tmp_path / "params.yaml").read_text())
    passed_on = stages()["bench"]["cmd"].split()[2:]
    given = [re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], word) for word in passed_on]
    alone, through_dvc = dry_run(tmp_path), dry_run(tmp_path, *given)
    assert alone == through_dvc
    assert " ".join(alone[0].split()).endswith(f"pytest benchmarks {expected}")


def test_a_real_dvc_runs_what_changed_and_nothing_else(tmp_path):
    dvc = os.environ.get("PRUNEBENCH_TEST_DVC") or shutil.which("dvc")
    if dvc is None:
        pytest.skip("dvc is not installed (pip install dvc), nor named by PRUNEBENCH_TEST_DVC")
    log = tmp_path / "log"
    root = project(tmp_path / "project", log)

    def run(*arguments):
        done = command(dvc, *arguments, cwd=root, DVC_NO_ANALYTICS="1", MAKEFLAGS="")
        assert done.returncode == 0, done.stderr
        calls = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return done.stdout, calls

    graph = run("dag")[0]
    assert [name in graph for name in stages()] == [True] * 3
    first = run("repro")[1]
    assert any("--profile quick --benchmark-save=quick" in call for call in first)
    assert first[-1] == "prunebench tables"
    assert "up to date" in run("status")[0]
    assert run("repro")[1] == []
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("default", "0,1"))
    assert any("--profile quick --seeds 0,1" in call for call in run("repro")[1])
    assert len(list((root / "results" / "runs").iterdir())) == 2, "saved runs add up"
    (root / "README.md").write_text("no input of anything")
    assert run("repro")[1] == []


def project(root: Path, log: Path) -> Path:
    """A small repository with the project's Makefile and DVC files, whose tools only note that they were called."""
    for path in ("prunebench/engine/native", "benchmarks", "results/tables", "results/plots", ".venv/bin", ".dvc"):
        (root / path).mkdir(parents=True)
        (root / path / "file").write_text(path)
    for name in ("Makefile", "dvc.yaml", "params.yaml", "pyproject.toml", "setup.py", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, root / name)
    for out in paths(stages()["tables"]["outs"]):
        if not (root / out).exists():
            (root / out).write_text(out)
    for name in TOOLS:
        (root / ".venv" / "bin" / name).write_text(_STANDIN.format(name=name, log=log))
        (root / ".venv" / "bin" / name).chmod(0o755)
    (root / ".venv" / "installed").touch()  # newer than what it depends on: nothing is installed
    assert command("git", "init", "-q", root).returncode == 0
    return root
