"""Layers and networks as pytest runs them: only where asked for, one tiny case each to its table, killed and read."""

from __future__ import annotations

import json
import re
import sys

import pytest
from running import ROOT, command, killed_in_mid_run, prunebench

from prunebench import engine

LAYERS, NETWORKS = "benchmarks/test_layers.py", "benchmarks/test_networks.py"
CLAIMS = "benchmarks/test_claims.py"
COLLECT = ("--collect-only", "-q")


def arguments(folder, *more):
    storage = f"--benchmark-storage=file://{folder}/results/runs"
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", storage, *map(str, more)]


def run_pytest(folder, *more, **changes):
    return command(*arguments(folder, *more), **changes)


def ids(done):
    return re.findall(r"\[(.*)\]", done.stdout)


@pytest.fixture(scope="module")
def native():
    if engine.available() is not None:
        pytest.skip(engine.available())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, native):
    """A folder with one saved run of one tiny layer case and one tiny network case, and what it printed."""
    folder = tmp_path_factory.mktemp("questions")
    done = run_pytest(folder, LAYERS, NETWORKS, "--profile", "smoke", "-k", "784_300 or test_network",
                      "--benchmark-save=tiny")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_the_grid_is_all_that_pytest_benchmarks_collects(tmp_path, profile):
    done = run_pytest(tmp_path, "benchmarks", *COLLECT, "--profile", profile)
    assert done.returncode == 0
    assert "test_grid.py" in done.stdout
    assert "test_layers.py" not in done.stdout
    assert "test_networks.py" not in done.stdout
    assert "test_claims.py" not in done.stdout


def test_the_paper_profile_collects_everything(tmp_path):
    done = run_pytest(tmp_path, "benchmarks", *COLLECT, "--profile", "paper", "--models", "lenet5", "--datasets",
                      "digits", "--sparsities", "0.9")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("test_grid.py", LAYERS, NETWORKS, CLAIMS):
        assert file in done.stdout


@pytest.mark.parametrize("named", [LAYERS, f"{ROOT}/{LAYERS}", f"{LAYERS}::test_layer"])
def test_a_file_named_is_collected_by_whatever_name(tmp_path, named):
    done = run_pytest(tmp_path, named, *COLLECT, "--models", "lenet5", "--sparsities", "0.9", "--batch-sizes", "4")
    assert ids(done) == [
        f"{shape}-s900-csr-b4-t1"
        for shape in ("conv_1_20_5x5_at_28", "conv_20_50_5x5_at_12", "linear_800_500", "linear_500_10")
    ]


def test_a_single_case_can_be_named_and_chosen_by_marker(tmp_path):
    name = "lenet300-s900-csr-b16-t1"
    done = run_pytest(tmp_path, f"{NETWORKS}::test_network[{name}]", *COLLECT)
    assert ids(done) == [name]
    marker = "cell(model='lenet300', batch=16, threads=1)"
    assert ids(run_pytest(tmp_path, NETWORKS, *COLLECT, "-m", marker)) == [name]


def test_collection_imports_no_torch():
    code = (
        f"import sys, pytest; code = pytest.main(['{LAYERS}', '{NETWORKS}', '{CLAIMS}', '--collect-only', '-q', "
        "'-p', 'no:cacheprovider']); assert code == 0; assert 'torch' not in sys.modules"
    )
    done = command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([LAYERS, "--models", "lenet6"], ["unknown model 'lenet6'"]),
        ([LAYERS, "--models", "vgg11"], ["'vgg11'", "mobilenet_v1"]),
        ([NETWORKS, "--models", "mobilenet_v1"], ["'mobilenet_v1'", "test_layers.py"]),
        ([NETWORKS, "--criteria", "l1"], ["--criteria says nothing about networks"]),
        ([LAYERS, "--epochs", "3"], ["--epochs says nothing about layers"]),
        ([CLAIMS, "--schedules", "agp"], ["--schedules says nothing about claims"]),
        ([CLAIMS, "--models", "lenet6"], ["unknown model 'lenet6'"]),
        ([NETWORKS, "--threads", "1,0"], ["--threads 0 is too small"]),
        ([NETWORKS, "--backends", "cuda"], ["unknown backend 'cuda'"]),
        (["benchmarks", "--threads", "1,2"], ["--threads 1,2: the grid takes one number", NETWORKS]),
        ([LAYERS, "--profile", "fast"], ["unknown profile 'fast'"]),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, given, words):
    done = run_pytest(tmp_path, *given)
    assert done.returncode == 4, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]


def test_a_case_of_each_is_complete_by_itself(finished):
    folder, printed = finished
    (file,) = (folder / "results" / "runs").rglob("*_tiny.json")
    run = json.loads(file.read_text())
    layer, network = (b["extra_info"] for b in run["benchmarks"])
    assert (layer["question"], network["question"]) == ("layers", "networks")
    for facts in (layer, network):
        assert (facts["schema"], facts["status"], facts["backend"], facts["threads"]) == (1, "ok", "csr", 1)
        assert facts["relative_error"] <= 1e-4
        assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]
    assert layer["layer"]["id"] == "linear_784_300"
    assert set(network["arms"]) == {"dense", "csr_unpruned", "csr"}
    assert "UNSERIALIZABLE" not in file.read_text()
    assert "1 cases of layers to measure" in printed
    assert "checkpoints" not in printed
    assert not list(folder.rglob("*.partial.jsonl"))


def test_its_tables_come_from_the_saved_run(finished):
    folder, _ = finished
    done = prunebench("tables", "--results", folder / "results")
    assert done.returncode == 0, done.stderr
    assert "lenet300" in done.stdout
    names = {f.name for f in (folder / "results" / "tables").iterdir()}
    for kind in ("layers", "networks", "breakeven"):
        assert [n for n in names if re.fullmatch(rf"{kind}-[0-9a-f]{{10}}-t1\.md", n)]


@pytest.mark.slow
def test_a_killed_run_loses_at_most_the_case_in_progress(tmp_path, native):
    command = arguments(tmp_path, LAYERS, "--models", "lenet300,lenet5,resnet20", "--benchmark-save=killed")
    journal = killed_in_mid_run(command, tmp_path, 3)
    assert len(journal.read_text().splitlines()) >= 3
    tables = prunebench("tables", "killed", "--results", tmp_path / "results")
    assert tables.returncode == 0, tables.stderr
    assert "linear_784_300" in tables.stdout
