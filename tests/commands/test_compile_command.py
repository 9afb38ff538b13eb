"""`prunebench compile` as a user types it: what it prints, its JSON, and one line for every mistake."""

import json

import pytest
import torch
from running import prunebench

import prunebench as pb
from prunebench.cli import main
from prunebench.engine import available

needs_engine = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")
CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(1024, 5))

def nothing():
    return nn.ReLU()
"""
FAST = ["--input", "1,3,12,12", "--seconds", "0.1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE)
    return tmp_path


@needs_engine
def test_it_prints_the_verdict_and_says_what_it_does_not_judge(folder, capsys, one_thread):
    assert main(["compile", "net.py:build", *FAST]) == 0
    out = capsys.readouterr().out
    for words in ("| dense ", "| csr_unpruned ", "| csr_s800 ", "| csr_s950 ", "break-even ", "verdict ", "in torch ",
                  "input 1×3×12×12, 1 thread", "Accuracy is not judged here", "7,856 prunable"):  # fmt: skip
        assert words in out, out


@needs_engine
def test_its_json_is_complete_and_plain(folder, capsys, one_thread):
    command = [
        "compile",
        "net.py:build",
        *FAST,
        "--sparsities",
        "0.9",
        "--batch-size",
        "3",
        "--json",
        "--scope",
        "layerwise",
    ]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["schema"] == 1
    assert facts["input_shape"] == [3, 3, 12, 12]
    assert facts["accuracy"] is None
    assert facts["scope"] == "layerwise"
    assert facts["machine"]["id"]
    sparse = [w for w in facts["ways"] if w["backend"] == "csr"]
    assert [w["name"] for w in sparse] == ["csr_unpruned", "csr_s900"]
    assert all({"seconds", "speedup_low", "verdict", "left_to_torch", "resident_bytes"} <= w.keys() for w in sparse)


@pytest.mark.parametrize(("given", "used"), [([], "layerwise"), (["--scope", "global"], "global")])
def test_random_weights_are_pruned_layer_by_layer(given, used, monkeypatch, capsys):
    from prunebench.measuring import own

    seen = []

    def measured(model, x, wanted, begins):
        seen.append((wanted.scope, tuple(x.shape)))
        return own.Report(9, 9, 9, 9, list(x.shape), 1, "l1", wanted.scope, None, [], [])

    monkeypatch.setattr(own, "measure", measured)
    assert main(["compile", "torchvision:squeezenet1_1", "--batch-size", "2", *given]) == 0
    assert seen == [(used, (2, 3, 224, 224))]
    assert "random weights" in capsys.readouterr().out


@needs_engine
def test_a_checkpoint_that_is_sparse_is_measured_as_it_is(folder, capsys, one_thread):
    from prunebench import sources

    model = sources.load("net.py:build").model
    pb.prune(model, 0.9)
    pb.save(model, "small.safetensors")
    assert main(["compile", "small.safetensors", "--model", "net.py:build", *FAST, "--sparsities", "0.95"]) == 0
    out = capsys.readouterr().out
    assert "| csr_s900 " in out
    assert "csr_unpruned" not in out
    assert "90.0 % of its weights are zero already" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "MODEL"),
        (["resnet18"], "torchvision:resnet18"),
        (["net.py:biuld"], "biuld"),
        (["net.py:build"], "give --input"),
        (["net.py:build", "--input", "1"], "is no shape"),
        (["net.py:build", "--input", "1,3,a,4"], "is no shape"),
        (["net.py:build", "--input", "1,3,0,4"], "is no shape"),
        (["net.py:build", "--input", "1,4,12,12"], "can't take an input of 1,4,12,12"),
        (["net.py:build", "--input", "100000,3,1000,1000"], "fewer than"),
        (["net.py:build", "--input", "2,3,12,12", "--batch-size", "3"], "disagree"),
        (["net.py:build", *FAST, "--batch-size", "0"], "--batch-size 0 is too small"),
        (["net.py:build", *FAST, "--batch-size", "many"], "not a whole number"),
        (["net.py:build", *FAST, "--sparsities", "90"], "outside [0, 1)"),
        (["net.py:build", *FAST, "--sparsities", "high"], "is not a number"),
        (["net.py:build", *FAST, "--sparsities", ","], "names none"),
        (["net.py:build", *FAST, "--criterion", "l3"], "unknown criterion 'l3'"),
        (["net.py:build", *FAST, "--criterion", "snip"], "no data"),
        (["net.py:build", *FAST, "--scope", "local"], "unknown scope 'local'"),
        (["net.py:build", *FAST, "--threads", "0"], "--threads 0 is too small"),
        (["net.py:build", *FAST, "--threads", "two"], "not a whole number"),
        (["net.py:build", *FAST, "--seconds", "0"], "--seconds '0'"),
        (["net.py:build", *FAST, "--seconds", "long"], "--seconds 'long'"),
        (["net.py:build", *FAST, "--seconds", "nan"], "--seconds 'nan'"),
        (["net.py:build", *FAST, "--model", "net.py:build"], "is a model already"),
        (["net.py:nothing", *FAST], "nothing to prune"),
        (["gone.safetensors", "--model", "net.py:build"], "no file gone.safetensors"),
        (["net.py:build", "--backend", "csr"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, arguments, words, capsys):
    if available() is not None and ("nothing to prune" in words or "can't take" in words or "no data" in words):
        pytest.skip("no native engine")
    assert main(["compile", *arguments]) == 2
    seen = capsys.readouterr()
    lines = seen.err.strip().splitlines()
    assert seen.out == ""
    assert lines[-1].startswith("prunebench: ")
    assert words in lines[-1], lines
    assert all("so far)" in line for line in lines[:-1])  # at most what it was doing meanwhile
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == ["net.py"]


@needs_engine
def test_a_wrong_answer_is_exit_code_1(folder, monkeypatch, capsys, one_thread):
    from prunebench.measuring import own

    monkeypatch.setattr(own, "TOLERANCE", -1.0)
    assert main(["compile", "net.py:build", *FAST, "--sparsities", "0.9"]) == 1
    assert "differs from the float64 reference" in capsys.readouterr().err


@needs_engine
@pytest.mark.slow
def test_in_a_process_of_its_own(folder):
    torch.manual_seed(0)
    done = prunebench("compile", str(folder / "net.py") + ":build", *FAST, "--peers", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "onnxruntime" in done.stdout
    assert "verdict" in done.stdout
