"""`prunebench pack`, `unpack` and `inspect` as a user types them, in this process: each starts torch otherwise."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

import prunebench as pb
from prunebench import formats, models
from prunebench.cli import main
from prunebench.formats.sizes import floor_bytes


@pytest.fixture
def lenet(tmp_path):
    """A pruned LeNet-300-100 for the digits and its file as the store would hold it."""
    model = models.build("lenet300", (1, 28, 28), 10).eval()
    pb.prune(model, 0.9)
    path = tmp_path / "in.safetensors"
    path.write_bytes(formats.to_bytes(model.state_dict()))
    return model, path


@pytest.mark.parametrize(("format", "values"), [("delta", "int8"), ("csr", "fp16"), ("bitmask", None)])
def test_pack_says_what_it_lost(lenet, tmp_path, capsys, format, values):
    model, source = lenet
    target = tmp_path / "out.safetensors"
    asked = ["pack", str(source), str(target), "--format", format, "--model", "lenet300", "--dataset", "digits"]
    assert main([*asked, *(["--values", values] if values else [])]) == 0
    told = capsys.readouterr().out
    state = pb.load(target)
    change = torch.cat([(state[n] - t).double().flatten() for n, t in model.state_dict().items()]).norm()
    norm = torch.cat([t.double().flatten() for t in model.state_dict().values()]).norm()
    assert f"{target.stat().st_size:,} bytes" in told
    if values is None:
        assert "weights   unchanged" in told
    else:
        assert f"weights   relative error {change / norm:.1e}, the largest" in told
    assert "outputs   relative error" in told
    assert "of 360 test images, loaded from" in told
    before, after = told.split("accuracy  ")[1].split(" of ")[0].split(" → ")
    assert abs(float(before.split()[0]) - float(after.split()[0])) < 3


def test_pack_tells_the_outputs_error_of_the_file(lenet, tmp_path, capsys):
    _, source = lenet
    main(["pack", str(source), str(tmp_path / "o"), "--values", "int8", "--model", "lenet300"])
    told = float(capsys.readouterr().out.split("outputs   relative error ")[1].split()[0])
    assert 1e-4 < told < 0.05  # int8 is seen, and no more than it


def test_unpack_gives_a_file_that_anything_reads(lenet, tmp_path, capsys):
    from safetensors.torch import load_file

    model, _ = lenet
    pb.save(model, tmp_path / "packed", format="delta")
    assert main(["unpack", str(tmp_path / "packed"), str(tmp_path / "plain")]) == 0
    assert f"unpacked from {(tmp_path / 'packed').stat().st_size:,}" in capsys.readouterr().out
    plain = load_file(tmp_path / "plain")
    assert plain.keys() == model.state_dict().keys()
    assert all(torch.equal(plain[name], tensor) for name, tensor in model.state_dict().items())


def test_inspect_tells_every_tensor(lenet, tmp_path, capsys):
    model, _ = lenet
    path = tmp_path / "m"
    pb.save(model, path, format="csr", values="fp16")
    assert main(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == 2
    assert told["bytes"] == path.stat().st_size
    rows = {row["name"]: row for row in told["tensors"]}
    for name, tensor in model.state_dict().items():
        row = rows[name]
        assert row["shape"] == list(tensor.shape)
        assert row["nonzeros"] == int(tensor.count_nonzero())
        if tensor.ndim == 2:
            assert (row["encoding"], row["values"], row["dtype"]) == ("csr", "F16", "F32")
            wide = 1 if tensor.shape[1] <= 256 else 2
            assert row["bytes"] == (2 + wide) * row["nonzeros"] + 4 * (len(tensor) + 1)
            assert row["bits_per_nonzero"] == pytest.approx(8 * row["bytes"] / row["nonzeros"])
    assert main(["inspect", str(path)]) == 0
    table = capsys.readouterr().out
    assert "fc1.weight" in table or next(iter(rows)) in table
    assert f"{path.stat().st_size:,} bytes" in table
    assert "schema 2" in table


def test_torchs_own_files_are_read_without_running_anything(tmp_path, capsys):
    model = models.build("lenet300", (1, 8, 8), 10)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "training.pt")
    for name in ("m.pt", "training.pt"):
        assert main(["pack", str(tmp_path / name), str(tmp_path / "out")]) == 0
        state = pb.load(tmp_path / "out")
        assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    torch.save(model, tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self):
            return open, (str(mark), "w")

    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    capsys.readouterr()
    for name in ("whole.pt", "list.pt", "evil.pt", "evil.pkl"):
        assert main(["pack", str(tmp_path / name), str(tmp_path / "other")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert name in error
    assert not mark.exists()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pack", "IN"], "IN and OUT, 1 given"),
        (["pack", "IN", "OUT", "--format", "zip"], "unknown format 'zip'; known: bitmask, csr, delta, dense"),
        (["pack", "IN", "OUT", "--values", "int4"], "unknown values 'int4'"),
        (["pack", "nothing", "OUT"], "can't read nothing"),
        (["pack", "IN", "OUT", "--dataset", "digits"], "give --model NAME"),
        (["pack", "IN", "OUT", "--model", "lenet6"], "unknown model 'lenet6'"),
        (["pack", "IN", "OUT", "--model", "lenet5"], "the weights are not of lenet5"),
        (["pack", "IN", "nowhere/OUT"], "can't write nowhere/OUT"),
        (["pack", "--compare"], "one file, or none and --model NAME"),
        (["pack", "--compare", "IN", "OUT"], "one file"),
        (["pack", "--compare", "--model", "lenet5", "--dataset", "digits"], "random weights have no accuracy"),
        (["pack", "--compare", "--model", "lenet5", "--sparsity", "2"], "outside [0, 1)"),
        (["pack", "--compare", "IN", "--timing-seconds", "nan"], "--timing-seconds nan"),
        (["unpack", "nothing", "OUT"], "can't read nothing"),
        (["inspect", "nothing"], "can't read nothing"),
        (["inspect", "conftest"], "not a readable safetensors checkpoint"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(lenet, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    os.rename("in.safetensors", "IN")
    (tmp_path / "conftest").write_text("import torch\n")
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert told.err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["IN", "conftest"]


def test_compare_tells_every_way_and_the_floor_is_below_all(lenet, capsys):
    model, source = lenet
    asked = ["pack", "--compare", str(source), "--model", "lenet300", "--dataset", "digits", "--table", "csv"]
    assert main(asked) == 0
    import io

    import pandas as pd

    table = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index(["stored as", "values"])
    size = table["bytes"].str.replace(",", "").astype(int)
    plain = "as they are"
    for format in ("bitmask", "csr", "delta"):
        for values in (plain, "fp16", "bf16", "int8"):
            floor = size["entropy floor", values]
            assert floor == floor_bytes(model.state_dict(), None if values == plain else values)
            assert floor < size[format, values] < 2.5 * floor
        assert size[format, "int8"] < size[format, "fp16"] < size[format, plain] < size["safetensors", plain] / 5
    assert size["delta", plain] < size["bitmask", plain]
    assert size["delta", "int8"] < 1.2 * size["entropy floor", "int8"]
    assert {"torch.save", "safetensors", "scipy save_npz"} <= {name for name, _ in table.index}
    assert "load ms" not in table  # nothing was timed
    errors = table["output error"].replace("–", "nan").astype(float)
    assert errors["delta", plain] < 1e-5 < errors["delta", "bf16"] < errors["delta", "int8"] < 0.05


@pytest.mark.slow
def test_loading_is_timed_against_safetensors(capsys):
    from prunebench.measuring.arms import network_input, pruned_copy, random_network
    from prunebench.measuring.packing import BASELINE, ways

    model = pruned_copy(random_network("resnet20"), 0.9)
    rows = ways(model.state_dict(), model, network_input("resnet20", 2), seconds=2.0)
    timed = [row for row in rows if row["load_seconds"] is not None]
    assert {(row["name"], row["values"]) for row in timed} >= {
        ("delta", "int8"),
        (BASELINE, None),
        ("torch.save", None),
    }
    for row in timed:
        if row["name"] != BASELINE:
            assert row["load_low"] <= row["load_speedup"] <= row["load_high"]
            assert row["load_verdict"] in ("faster", "slower", "inconclusive", "unstable")
