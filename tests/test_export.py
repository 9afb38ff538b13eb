"""ONNX files: valid, equal in ONNX Runtime at any batch size, smaller without their zeros on disk and only there."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from running import prunebench
from torch import nn

import prunebench as pb
from prunebench import backends, models
from prunebench.errors import UsageError

onnx = pytest.importorskip("onnx", reason="onnx not installed; pip install 'prunebench[onnxruntime]'")
NETWORKS = [("lenet300", (1, 28, 28)), ("lenet5", (1, 28, 28)), ("resnet20", (3, 32, 32))]


@pytest.fixture
def onnxruntime():
    reason = backends.unavailable("onnxruntime")
    if reason:
        pytest.skip(reason)
    return pytest.importorskip("onnxruntime")


def pruned(name="lenet5", shape=(1, 28, 28)):
    model = models.build(name, shape, 10)
    model.train()(torch.randn(4, *shape))
    pb.prune(model.eval(), 0.9, scope="layerwise")
    return model


@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_both_forms_are_valid_and_equal(name, shape, tmp_path, onnxruntime):
    model, x = pruned(name, shape), torch.randn(3, *shape)
    sizes, outputs = [], []
    for sparse in (False, True):
        path = tmp_path / f"{sparse}.onnx"
        sizes.append(pb.export_onnx(model, x[:1], path, sparse_initializer=sparse))
        assert path.stat().st_size == sizes[-1]
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"x": x.numpy()})[0])
    assert np.array_equal(*outputs)
    torch.testing.assert_close(torch.from_numpy(outputs[0]), model(x).detach(), rtol=1e-4, atol=1e-5)
    # 12 bytes for each nonzero instead of 4 for every weight.
    assert sizes[0] > 4 * sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert sizes[1] < 0.4 * sizes[0]


def test_sparse_initializers_are_what_the_specification_says(tmp_path):
    model = pruned()
    pb.export_onnx(model, torch.zeros(1, 1, 28, 28), tmp_path / "m.onnx", sparse_initializer=True)
    graph = onnx.load(tmp_path / "m.onnx").graph
    found = {s.values.name: s for s in graph.sparse_initializer}
    assert set(found) == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}
    assert not set(found) & {t.name for t in graph.initializer}
    for name, coo in found.items():
        values, places = (onnx.numpy_helper.to_array(t) for t in (coo.values, coo.indices))
        assert (values.dtype, places.dtype, values.shape) == (np.float32, np.int64, places.shape)
        assert (np.diff(places) > 0).all()
        dense = np.zeros(tuple(coo.dims), np.float32)
        dense.reshape(-1)[places] = values
        assert np.array_equal(dense, model.get_parameter(name).detach().numpy())


def test_what_would_not_get_smaller_stays_dense(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20)).eval()
    pb.prune(model, exclude=["3"], sparsity=0.6)
    model[3].weight.data.zero_()  # nothing left: runtimes differ on empty values
    x = torch.zeros(1, 40)
    sizes = [pb.export_onnx(model, x, tmp_path / "m.onnx", s) for s in (False, True)]
    assert sizes[0] == sizes[1]
    assert not onnx.load(tmp_path / "m.onnx").graph.sparse_initializer


def test_openvino_says_which_initializer_it_lacks(tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino not installed; pip install 'prunebench[openvino]'")
    model, x = pruned(), torch.randn(2, 1, 28, 28)
    answers = {}
    for sparse in (False, True):
        pb.export_onnx(model, x[:1], tmp_path / "m.onnx", sparse)
        try:
            compiled = openvino.Core().compile_model(
                str(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        except RuntimeError as error:
            answers[sparse] = str(error)
        else:
            answers[sparse] = float(abs(compiled({0: x.numpy()})[0] - model(x).detach().numpy()).max())
    assert answers[False] < 1e-5
    # A version that takes it must be right; those up to 2026.4 say that a weight isn't there.
    assert answers[True] < 1e-5 if isinstance(answers[True], float) else "weight" in answers[True]


_RESIDENT = """
import json, sys
import onnxruntime
def resident():
    fields = open("/proc/self/status").read().split()
    return 1024 * int(fields[fields.index("VmRSS:") + 1])
onnxruntime.set_default_logger_severity(3)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
warm = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
before = resident()
sessions = [onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"]) for _ in range(3)]
print(json.dumps((resident() - before) / 3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_onnxruntime_holds_the_zeros_whichever_file_it_read(tmp_path, onnxruntime):
    model = nn.Sequential(nn.Linear(1500, 2000), nn.ReLU(), nn.Linear(2000, 1500)).eval()
    pb.prune(model, 0.95, scope="layerwise")
    files = [tmp_path / f"{sparse}.onnx" for sparse in (False, True)]
    sizes = [pb.export_onnx(model, torch.zeros(1, 1500), f, s) for f, s in zip(files, (False, True), strict=True)]
    small = tmp_path / "small.onnx"
    pb.export_onnx(nn.Linear(2, 2).eval(), torch.zeros(1, 2), small)
    held = [
        json.loads(subprocess.check_output([sys.executable, "-c", _RESIDENT, str(small), str(f)], text=True))
        for f in files
    ]
    dense = 4 * 2 * 1500 * 2000
    assert sizes[1] < 0.16 * sizes[0]
    assert min(held) > 0.9 * dense  # all weights, zeros too, from either file


def test_what_can_not_be_exported_is_one_line_and_leaves_nothing(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            raise RuntimeError("two\nlines")

    linear, x = nn.Linear(3, 2).eval(), torch.zeros(1, 3)
    for model, example, to, words in (
        ("model", x, "a.onnx", "torch.nn.Module"),
        (nn.Linear(3, 2), x, "a.onnx", "model.eval()"),
        (linear, x.double(), "a.onnx", "float32"),
        (linear, x[:0], "a.onnx", "float32"),
        (Odd().eval(), x, "a.onnx", "Odd can't be exported"),
        (linear, x, "nowhere/a.onnx", "can't write"),
    ):
        with pytest.raises(UsageError, match=words.replace("(", r"\(").replace(")", r"\)")) as error:
            pb.export_onnx(model, example, tmp_path / to)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_a_checkpoint(tmp_path):
    model = pruned("lenet300")
    pb.save(model, tmp_path / "m.safetensors")
    done = prunebench("export", tmp_path / "m.safetensors", "--model", "lenet300", "--to", tmp_path / "m.onnx",
                      "--sparse-initializer")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{(tmp_path / 'm.onnx').stat().st_size:,} bytes" in done.stdout
    assert len(onnx.load(tmp_path / "m.onnx").graph.sparse_initializer) == 3
    wrong = prunebench("export", tmp_path / "m.safetensors", "--model", "lenet5", "--to", tmp_path / "n.onnx")
    assert wrong.returncode == 2
    assert "does not fit" in wrong.stderr
    shape = prunebench("export", "x", "--model", "lenet5", "--to", "y", "--input-shape", "3,32")
    assert (shape.returncode, "give three numbers" in shape.stderr) == (2, True)
    assert not (tmp_path / "n.onnx").exists()
