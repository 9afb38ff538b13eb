"""docs/scale.md and the cluster files: prunebench takes every command, and the estimate is what it prints."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench import cli
from prunebench.commands import sweep
from prunebench.commands.cells import plan_of_lists

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scale.md"
CLUSTER = ROOT / "examples" / "cluster"


def commands(path: Path) -> list[list[str]]:
    """The words of every `prunebench` command in a file, continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    found = re.findall(r"^(?:.* -- +)?prunebench ((?:sweep|estimate) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


FILES = [PAGE, CLUSTER / "sweep.slurm"]


@pytest.mark.parametrize("words", [w for f in FILES for w in commands(f)], ids=lambda w: " ".join(w)[:60])
def test_every_command_is_understood(words):
    options = cli._parser().parse_args(words)
    plan = plan_of_lists(options)
    assert plan.cells
    if words[0] == "sweep":
        assert sweep.executor_options(options).name in ("local", "ray")


def test_there_are_commands_to_understand():
    assert [len(commands(f)) for f in FILES] == [6, 1]


def test_the_slurm_grid_is_the_one_that_was_estimated():
    [slurm] = commands(CLUSTER / "sweep.slurm")
    [estimated] = [words for words in commands(PAGE) if words[0] == "estimate"]
    slurm, estimated = (plan_of_lists(cli._parser().parse_args(words)).cells for words in (slurm, estimated))
    assert len(slurm) == 10_005
    assert {replace(cell, dataset="") for cell in slurm} == {replace(cell, dataset="") for cell in estimated}


def test_the_estimate_on_the_page_is_what_the_command_prints(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNEBENCH_STORE", str(tmp_path))
    [words] = [words for words in commands(PAGE) if words[0] == "estimate"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out in PAGE.read_text()


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.slurm")), ids=lambda p: p.name)
def test_the_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_the_quiet_node_trains_nothing():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    cluster = yaml.safe_load((CLUSTER / "raycluster.yaml").read_text())
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert groups["quiet"]["rayStartParams"] == {"num-cpus": "0", "resources": '"{\\"quiet\\": 1}"'}
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in groups.values():
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
