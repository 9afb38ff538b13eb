"""The grid as pytest runs it: real subprocesses, from collection to saved run, kill and resume."""

from __future__ import annotations

import json
import re
import sys

import pytest
from running import BIN, TINY, command, grid_command, killed_in_mid_run, prunebench, pytest_grid

COLLECT = ("--collect-only", "-q")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with one finished tiny run, saved as `first`, and what it printed."""
    folder = tmp_path_factory.mktemp("finished run")
    done = pytest_grid(folder, *TINY, "--benchmark-save=first")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def saved(folder, name):
    (file,) = (folder / "results" / "runs").rglob(f"*_{name}.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "grid",
    [
        "",
        "--controls --criteria=lp:p=3,taylor:group=true,woodfisher:block=20,obc:damping=0.1,synflow,wanda,bn_scale",
        "--scopes=lamp:power=1,erk:first=dense,like:criterion=snip --granularities=channel,filter,block:rows=2 "
        "--schedules=geometric:sparsity=0.8,polynomial:power=2,cosine --recipe=default:rewind=weights",
    ],
    ids=["profile", "criteria", "others"],
)
def test_collection_imports_no_torch(grid):
    options = ["benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider", *grid.split()]
    code = (
        f"import sys, pytest; code = pytest.main({options}); "
        "assert code == 0; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    done = command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ids_read_as_a_sentence_and_the_control_is_there_once(tmp_path):
    done = pytest_grid(
        tmp_path,
        *COLLECT,
        "--models",
        "lenet5",
        "--datasets",
        "mnist",
        "--criteria",
        "l1,lp:p=3",
        "--sparsities",
        "0,0.9,0.9167",
        "--backends",
        "csr",
        "--batch-sizes",
        "64",
    )
    ids = re.findall(r"\[(.*)\]", done.stdout)
    assert ids == [
        "lenet5-mnist-none-none-none-none-s000-seed0-csr-b64",
        "lenet5-mnist-l1-weight-global-agp-s900-seed0-csr-b64",
        "lenet5-mnist-l1-weight-global-agp-s916_7-seed0-csr-b64",
        "lenet5-mnist-lp_p3-weight-global-agp-s900-seed0-csr-b64",
        "lenet5-mnist-lp_p3-weight-global-agp-s916_7-seed0-csr-b64",
    ]
    assert all(re.fullmatch(r"[\w-]+", i) for i in ids)


def test_controls_are_cases_of_their_own_that_k_and_markers_choose(tmp_path):
    small = (*COLLECT, "--profile", "smoke", "--criteria", "l1,l2", "--backends", "dense", "--controls")
    done = pytest_grid(tmp_path, *small)
    like = "weight-like_criterion{}_scopeglobal-one_shot-s900-seed0-dense-b64"
    twins = [("random", "l1"), ("random", "l2"), ("l1", "l2")]
    ids = re.findall(r"\[(.*)\]", done.stdout)
    assert [name for name in ids if "like" in name] == [f"lenet300-digits-{a}-{like.format(b)}" for a, b in twins]
    assert len(ids) == 1 + 2 + 3
    mark = "cell(criterion='random', scope='like:criterion=l2:scope=global')"
    assert re.findall(r"\[(.*)\]", pytest_grid(tmp_path, *small, "-m", mark).stdout) == [ids[4]]
    assert re.findall(r"\[(.*)\]", pytest_grid(tmp_path, *small, "-k", ids[4]).stdout) == [ids[4]]


def test_every_id_can_be_chosen_by_k_and_by_marker(tmp_path):
    name = "lenet300-digits-l1-weight-global-one_shot-s900-seed0-csr-b64"
    by_name = pytest_grid(tmp_path, *COLLECT, "--profile", "smoke", "-k", name)
    assert re.findall(r"\[(.*)\]", by_name.stdout) == [name]
    marked = pytest_grid(
        tmp_path, *COLLECT, "--profile", "smoke", "-m", "cell(criterion='l1', sparsity=900, backend='csr')"
    )
    assert re.findall(r"\[(.*)\]", marked.stdout) == [name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "lenet6"], ["unknown model 'lenet6'", "lenet300, lenet5", "torchvision"]),
        (["--criteria", "l1,magic"], ["unknown criterion 'magic'", "l1, l2", "prunebench list criteria"]),
        (["--criteria", "lp:q=3"], ["unknown parameter", "'q'", "known: p"]),
        (["--datasets", "mnits"], ["unknown dataset 'mnits'", "digits"]),
        (["--scopes", "local"], ["unknown scope 'local'", "erk, global"]),
        (["--schedules", "agb"], ["unknown schedule 'agb'", "agp, cosine"]),
        (["--granularities", "layer"], ["unknown granularity 'layer'", "n_m, weight"]),
        (["--backends", "cuda"], ["unknown backend 'cuda'", "csr"]),
        (["--sparsities", "1.0"], ["sparsity 1.0 is outside [0, 1)"]),
        (["--sparsities", "-0.1"], ["outside [0, 1)"]),
        (["--sparsities", "nan"], ["outside [0, 1)"]),
        (["--sparsities", "half"], ["'half' is not a number"]),
        (["--models", ""], ["--models is empty"]),
        (["--models", "lenet5,,lenet300"], ["empty item"]),
        (["--batch-sizes", "0"], ["batch size 0 is too small", "at least 1"]),
        (["--batch-sizes", "6.4"], ["not a whole number"]),
        (["--seeds", "-1"], ["seed -1 is too small"]),
        (["--epochs", "0"], ["epochs 0 is too small"]),
        (["--threads", "0"], ["--threads 0 is too small"]),
        (["--profile", "fast"], ["unknown profile 'fast'", "paper, quick, smoke"]),
        (["--recipe", "best"], ["unknown recipe 'best'"]),
        (["--benchmark-save=Big Run"], ["can't be a run's name"]),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(tmp_path, arguments, words):
    done = pytest_grid(tmp_path, *arguments)
    assert done.returncode == 4, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]
    assert not (tmp_path / "store").exists()


def test_a_missing_dataset_is_told_before_anything_starts(tmp_path):
    done = pytest_grid(tmp_path, *TINY, "--datasets", "digits,mnist", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 4
    assert "dataset 'mnist' is not in" in done.stderr
    assert "--data DIR" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "store").exists()


def test_a_run_says_first_what_it_will_cost(finished):
    assert re.search(r"prunebench: 2 cells, 2 checkpoints to train \(.+\), 8 cases to measure .* in all", finished[1])


def test_every_case_is_complete_by_itself(finished):
    run = saved(finished[0], "first")
    assert len(run["benchmarks"]) == 8
    assert run["machine_info"]["node"] == ""
    assert re.fullmatch(r"[0-9a-f]{10}", run["machine_info"]["prunebench"]["id"])
    for bench in run["benchmarks"]:
        facts = bench["extra_info"]
        assert facts["schema"] == 1
        assert facts["status"] == "ok"
        assert facts["backend"] in ("dense", "masked", "scipy_csr", "csr")
        assert facts["threads"] == 1
        assert facts["relative_error"] <= 1e-4
        assert facts["nonzeros"] == (266_200 if facts["cell"]["criterion"] == "none" else 26_620)
        assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]
        assert facts["verdict"] in ("faster", "slower", "inconclusive", "unstable")
        assert "UNSERIALIZABLE" not in json.dumps(bench)


def test_no_journal_stays_after_a_saved_run(finished):
    assert not list(finished[0].rglob("*.partial.jsonl"))


def test_a_second_run_trains_nothing_and_the_two_compare(finished):
    folder, _ = finished
    before = {f: f.stat().st_mtime_ns for f in (folder / "store").rglob("*") if f.is_file()}
    again = pytest_grid(folder, *TINY, "--benchmark-save=second")
    assert again.returncode == 0, again.stdout
    assert "0 checkpoints to train" in again.stdout
    assert "prunebench: 0 checkpoints trained" in again.stdout
    assert {f: f.stat().st_mtime_ns for f in (folder / "store").rglob("*") if f.is_file()} == before
    one, two = saved(folder, "first"), saved(folder, "second")
    accuracies = [[b["extra_info"]["accuracy"] for b in run["benchmarks"]] for run in (one, two)]
    assert accuracies[0] == accuracies[1]
    files = sorted(map(str, (folder / "results" / "runs").rglob("*.json")))
    compared = command(BIN / "pytest-benchmark", "compare", *files)
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("seed0-csr-b64") == 4


def test_tables_come_from_the_saved_runs_alone(finished):
    folder, _ = finished
    done = prunebench("tables", "--results", folder / "results")
    assert done.returncode == 0, done.stderr
    assert "unpruned" in done.stdout
    assert "l1 weight global one_shot" in done.stdout
    first = {f.name: f.read_bytes() for f in (folder / "results" / "tables").iterdir()}
    assert {name.rsplit(".", 1)[1] for name in first} == {"md", "csv", "html", "tex"}
    prunebench("tables", "--results", folder / "results")
    assert {f.name: f.read_bytes() for f in (folder / "results" / "tables").iterdir()} == first


def test_a_diverged_cell_is_shown_and_the_grid_goes_on(tmp_path):
    broken = tmp_path / "conftest_plugin.py"
    broken.write_text(
        "import prunebench as pb\n"
        "@pb.model('explodes')\n"
        "def explodes(input_shape, classes):\n"
        "    from torch import nn\n"
        "    class Net(nn.Sequential):\n"
        "        def forward(self, x):\n"
        "            y = super().forward(x)\n"
        "            return y * float('inf') if self.training else y\n"
        "    return Net(nn.Flatten(), nn.Linear(784, classes))\n"
    )
    done = pytest_grid(
        tmp_path,
        *TINY,
        "--models",
        "explodes,lenet300",
        "--backends",
        "dense",
        "--benchmark-save=mixed",
        "-p",
        "conftest_plugin",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 2 xfailed" in done.stdout
    run = saved(tmp_path, "mixed")
    assert [f["status"] for f in run["prunebench"]["untimed"]] == ["diverged", "diverged"]
    tables = prunebench("tables", "--results", tmp_path / "results")
    assert tables.stdout.count("diverged") >= 2
    assert "lenet300" in tables.stdout


def test_a_backend_that_raises_is_a_failed_row(tmp_path):
    (tmp_path / "fragile_plugin.py").write_text(
        "import prunebench as pb\n"
        "@pb.backend('fragile')\n"
        "class Fragile:\n"
        "    def __init__(self, model, x, threads=1):\n"
        "        self.nbytes = 1\n"
        "    def __call__(self, x):\n"
        "        raise RuntimeError('out of\\x1b[31m ideas')\n"
    )
    done = pytest_grid(
        tmp_path,
        *TINY,
        "--backends",
        "fragile,dense",
        "--benchmark-save=fragile",
        "-p",
        "fragile_plugin",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = saved(tmp_path, "fragile")["prunebench"]["untimed"]
    assert {(f["backend"], f["status"]) for f in failed} == {("fragile", "failed")}
    assert all("out of" in f["reason"] and "\x1b" not in f["reason"] for f in failed)
    assert "failed" in prunebench("tables", "--results", tmp_path / "results").stdout


def test_a_cheating_criterion_is_named(tmp_path):
    (tmp_path / "cheat_plugin.py").write_text(
        "import prunebench as pb\n@pb.criterion('cheat')\ndef cheat(layer):\n    return layer.weight[:1]\n"
    )
    done = pytest_grid(
        tmp_path, *TINY, "--criteria", "cheat", "--backends", "dense", "-p", "cheat_plugin", PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 1
    assert "criterion 'cheat' returned shape (1, 784) for fc1.weight" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


@pytest.mark.slow
def test_a_killed_run_loses_at_most_the_case_in_progress(tmp_path):
    command = grid_command(tmp_path, *TINY, "--seeds", "0,1,2,3", "--benchmark-save=killed")
    journal = killed_in_mid_run(command, tmp_path, 4)
    measured = len(journal.read_text().splitlines()) - 1
    assert measured >= 3
    tables = prunebench("tables", "killed", "--results", tmp_path / "results")
    assert tables.returncode == 0, tables.stderr
    assert "unpruned" in tables.stdout
    stored = sorted(f.name for f in (tmp_path / "store" / "artifacts").glob("*/*") if not f.name.startswith("."))
    again = pytest_grid(tmp_path, *TINY, "--seeds", "0,1,2,3", "--benchmark-save=resumed")
    assert again.returncode == 0, again.stdout
    assert f"{8 - len(stored)} checkpoints to train" in again.stdout
    assert len(saved(tmp_path, "resumed")["benchmarks"]) == 32
