"""The `prunebench` command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from running import ROOT, prunebench


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--model", "lenet6"], ["unknown model 'lenet6'"]),
        (["run", "--sparsity", "1.2"], ["sparsity 1.2 is outside [0, 1)"]),
        (["run", "--sparsity", ""], ["--sparsities is empty", "''"]),
        (["run", "--batch-size", "0"], ["batch size 0 is too small"]),
        (["run", "--models", "lenet5"], ["did you mean --model?; see 'prunebench run --help'"]),
        (["list", "--josn=x"], ["unrecognized arguments: --josn=x; did you mean --json?"]),
        (["lst"], ["did you mean list?"]),
        (["store", "verfy"], ["did you mean verify?; see 'prunebench store --help'"]),
        (["run", "--model", "alexnet"], ["model 'alexnet' can't take 1x28x28 images"]),
        (["run", "--dataset", "imagefolder"], ["needs a path"]),
        (["run", "--dataset", "imagefolder:nowhere"], ["is not at nowhere"]),
        (["sweep", "--executor", "cloud"], ["unknown executor 'cloud'", "local"]),
        (["tables", "nothing"], ["unknown run 'nothing'", "--benchmark-save=NAME"]),
        (["tables", "--format", "pdf"], ["unknown format 'pdf'", "github"]),
        (["claims", "nothing"], ["unknown run 'nothing'", "--benchmark-save=NAME"]),
        (["claims", "--format", "pdf"], ["unknown format 'pdf'", "github"]),
        (["list", "cheese"], ["unknown group 'cheese'", "criteria"]),
        (["frobnicate"], ["invalid choice: 'frobnicate'"]),
        ([], ["COMMAND"]),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(tmp_path, arguments, words):
    done = prunebench(*arguments, PRUNEBENCH_STORE=str(tmp_path / "store"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("prunebench: ")
    assert any(word in lines[0] for word in words), lines[0]
    assert not (tmp_path / "store").exists()


def test_list_names_what_can_be_used():
    done = prunebench("list", "criteria")
    assert {"l1", "l2", "linf", "lp", "random"} <= set(done.stdout.split())
    everything = prunebench("list").stdout
    for group in ("criteria", "granularities", "scopes", "schedules", "models", "datasets", "backends", "profiles"):
        assert f"{group}: " in everything


def test_list_says_which_backends_are_off_and_why_without_importing_them(tmp_path):
    # Modules of these names that would end the process: looking for a runtime must not import it.
    for name in ("torch", "jax", "onnx", "onnxruntime", "openvino", "tensorflow"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(9)\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    code = (
        "import sys; from prunebench.backends import needs; from prunebench.cli import main; "
        "needs.EXTRAS['openvino'] = needs.Extra('openvino', ('openvino', 'no_such_runtime')); "
        "sys.exit(main(['list', *sys.argv[1:]]))"
    )
    one, all_groups = (
        subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=env)
        for words in (["backends"], [])
    )
    assert (one.returncode, one.stderr) == (0, "")
    lines = one.stdout.splitlines()
    assert "openvino: off: no_such_runtime not installed; pip install 'prunebench[openvino]'" in lines
    assert {"dense", "masked", "onnxruntime"} <= set(lines)
    assert "openvino (off)" in all_groups.stdout


def test_doctor_tells_of_the_machine():
    done = prunebench("doctor")
    assert done.returncode == 0
    assert "machine " in done.stdout
    assert "csr engine" in done.stdout
    assert "backend    dense: ready" in done.stdout


def test_run_measures_one_cell_and_sweep_shares_its_store(tmp_path):
    store = str(tmp_path / "store")
    short = ("--epochs", "1", "--fine-tune-epochs", "1")
    one = prunebench("run", "--schedule", "one_shot", *short, "--timing-seconds", "0.1", PRUNEBENCH_STORE=store)
    assert one.returncode == 0, one.stderr
    assert "nonzeros     26,620 of 266,200" in one.stdout
    assert "times smaller" in one.stdout or "× smaller than dense" in one.stdout
    assert "2 checkpoints to train" in one.stderr
    sweep = prunebench("sweep", "--profile", "smoke", *short, "--sparsities", "0.5,0.9", PRUNEBENCH_STORE=store)
    assert sweep.returncode == 0, sweep.stderr
    assert "3 cells: 1 trained" in sweep.stdout


def test_run_measures_a_cell_s_controls_beside_it(tmp_path):
    short = ("--epochs", "1", "--fine-tune-epochs", "1", "--timing-seconds", "0.05", "--backend", "dense")
    done = prunebench("run", "--schedule", "one_shot", "--controls", *short, PRUNEBENCH_STORE=str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    ids = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [name.split("-")[2] for name in ids] == ["l1", "random"]
    assert "like_criterionl1_scopeglobal" in ids[1]
    assert done.stdout.count("nonzeros     26,620 of 266,200") == 2


def test_a_store_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = prunebench("run", "--epochs", "1", PRUNEBENCH_STORE=str(tmp_path / "file" / "store"))
    assert done.returncode == 2
    assert "can't be written" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_tables_prints_the_format_asked_for(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    done = prunebench("tables", "--results", tmp_path)
    assert done.returncode == 2
    assert "no saved run holds a result yet" in done.stderr
    (runs / "0001_broken.json").write_text(json.dumps({"benchmarks": 3}))
    broken = prunebench("tables", "--results", tmp_path)
    assert broken.returncode == 2
    assert "0001_broken.json is not a saved run" in broken.stderr


def test_claims_are_judged_without_a_run_and_from_the_runs_named(tmp_path):
    done = prunebench("claims", "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "| same_accuracy" in done.stdout
    assert "  pytest benchmarks --datasets mnist --models lenet300" in done.stdout
    assert "not measured" in (tmp_path / "results" / "claims.md").read_text()
    saved = next((ROOT / "results" / "runs").rglob("*_mnist.json"))
    runs = tmp_path / "results" / "runs"
    runs.mkdir()
    (runs / saved.name).write_bytes(saved.read_bytes())
    named = prunebench("claims", "mnist", "--format", "csv", "--results", tmp_path / "results")
    assert named.returncode == 0, named.stderr
    assert 'same_accuracy,"mnist lenet5, l1 weight global agp, 90 %",holds' in named.stdout
    assert "mnist: lenet5-mnist" in (tmp_path / "results" / "claims.csv").read_text()
