"""Models named in one text: every kind of source that can be had offline, checkpoints read into them, and mistakes."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunebench as pb
from prunebench import sources
from prunebench.errors import UsageError
from prunebench.sources.zoo import _sample

CODE = """
import helper
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, helper.WIDTH, 3)
        self.fc = nn.Linear(helper.WIDTH, 5)
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))

def build():
    return Tiny()

ready = Tiny()
def raises():
    raise RuntimeError("no weights\\nhere")
def three():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").write_text("WIDTH = 8\n")
    (tmp_path / "own_net.py").write_text(CODE)
    (tmp_path / "broken_net.py").write_text("def build(:\n")
    (tmp_path / "lacking_net.py").write_text("import not_a_package_anywhere\n")
    return tmp_path


def test_a_torchvision_name_with_options():
    source = sources.load("torchvision:squeezenet1_1:num_classes=7")
    assert source.model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert (source.sample, source.trained, source.model.training) == ((3, 224, 224), False, False)
    assert _sample("torchvision", "vit_b_16", SimpleNamespace(image_size=32)) == (3, 32, 32)
    assert _sample("torchvision", "inception_v3", nn.Identity()) == (3, 299, 299)


@pytest.mark.parametrize("text", ["own_net.py:build", "own_net.py:ready", "own_net:build"])
def test_a_function_of_ones_own(folder, text, monkeypatch):
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    source = sources.load(text)
    assert source.model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert source.sample is None
    assert source.trained


@pytest.mark.parametrize("how", ["dense", "bitmask", "plain", "torch", "nested", "masked", "parallel", "half"])
def test_weights_are_read_into_the_model_they_are_for(folder, how):
    model = sources.load("own_net.py:build").model
    pb.prune(model, 0.7)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    path = "weights.pt" if how in ("torch", "nested") else "weights.safetensors"
    if how in ("dense", "bitmask"):
        pb.save(model, path, format=how)
    elif how == "torch":
        torch.save(state, path)
    elif how == "nested":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif how == "masked":
        torch_prune.custom_from_mask(model.conv, "weight", model.conv.weight != 0)
        model.conv.weight_orig.data += 1  # what the mask hides must not come back
        state["conv.weight"] = model.conv.weight_orig.detach() * model.conv.weight_mask
        safetensors.torch.save_file(model.state_dict(), path)
    elif how == "parallel":
        safetensors.torch.save_file({f"module.{k}": v for k, v in state.items()}, path)
    elif how == "half":
        safetensors.torch.save_file({k: v.half() for k, v in state.items()}, path)
    else:
        safetensors.torch.save_file(state, path)
    source = sources.load(path, "own_net.py:build")
    found = source.model.state_dict()
    want = {k: v.half().float() if how == "half" else v for k, v in state.items()}
    assert all(torch.equal(found[k], want[k]) for k in want)
    assert all(t.dtype == torch.float32 for t in found.values())


class Nasty:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnet18", ["names no model", "torchvision:resnet18", "timm:NAME"]),
        ("", ["names no model"]),
        ("torchvision:", ["nothing after the colon"]),
        ("torchvision:resnet19", ["no model 'resnet19'", "resnet18"]),
        ("torchvision:resnet18:num_classes", ["is no option", "num_classes=10"]),
        ("torchvision:resnet18:colour=3", ["can't build", "colour"]),
        ("hf:nowhere", ["is no folder here", "download"]),
        ("hf:.", ["has no config.json"]),
        (".", ["hf:."]),
        ("own_net.py", ["without its function", "own_net.py:FUNCTION"]),
        ("own_net.py:", ["nothing after the colon"]),
        ("own_net.py:biuld", ["has no 'biuld'", "build", "raises"]),
        ("own_net.py:raises", ["RuntimeError: no weights here"]),
        ("own_net.py:three", ["returned int", "torch.nn.Module"]),
        ("broken_net.py:build", ["can't be imported", "SyntaxError"]),
        ("lacking_net.py:build", ["not_a_package_anywhere"]),
        ("lacking_net:build", ["not_a_package_anywhere"]),
        ("nowhere.py:build", ["no file nowhere.py"]),
        ("no_such_module_here:build", ["no module 'no_such_module_here'"]),
        ("missing.safetensors", ["no file missing.safetensors"]),
        ("missing.onnx", ["no file missing.onnx"]),
        ("damaged.safetensors", ["damaged.safetensors is not a readable safetensors"]),
        ("weights.safetensors", ["no architecture", "--model"]),
        ("nasty.pt", ["nothing else is unpickled", "safetensors"]),
        ("number.pt", ["holds no state dict"]),
    ],
)
def test_a_mistake_is_named_in_one_line(folder, text, words, capsys):
    (folder / "damaged.safetensors").write_bytes(b"\xff" * 64)
    pb.save({"a": torch.zeros(2)}, "weights.safetensors")
    torch.save(Nasty(), "nasty.pt")
    torch.save(3, "number.pt")
    with pytest.raises(UsageError) as caught:
        sources.load(text)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc.bias"), ["missing: fc.bias (5,)"]),
        (lambda s: s.update(head=torch.zeros(1)), ["not in the model: head (1,)"]),
        (lambda s: s.update({"fc.weight": torch.zeros(9, 8)}), ["fc.weight (9, 8) instead of (5, 8)", "num_classes=N"]),
        (lambda s: s.clear() or s.update(a=torch.zeros(1)), ["and 1 more", "not in the model: a (1,)"]),
    ],
)
def test_weights_that_do_not_fit_list_the_keys_that_differ(folder, change, words):
    state = sources.load("own_net.py:build").model.state_dict()
    change(state)
    pb.save(state, "weights.safetensors")
    with pytest.raises(UsageError, match=r"weights\.safetensors doesn't fit own_net\.py:build") as caught:
        sources.load("weights.safetensors", "own_net.py:build")
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("text", "model"), [("own_net.py:build", "own_net.py:build"), ("a.safetensors", "b.pt")])
def test_an_architecture_belongs_to_a_checkpoint(folder, text, model):
    pb.save({"a": torch.zeros(2)}, "a.safetensors")
    with pytest.raises(UsageError, match="--model"):
        sources.load(text, model)


@pytest.mark.parametrize("package", ["timm", "transformers", "onnx2torch"])
def test_a_package_that_is_missing_is_named_with_the_remedy(folder, package, monkeypatch):
    (folder / "config.json").write_text("{}")
    (folder / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    text = {"timm": "timm:resnet18", "transformers": "hf:.", "onnx2torch": "net.onnx"}[package]
    if package == "onnx2torch":
        pytest.importorskip("onnx")
    with pytest.raises(UsageError, match=f"pip install {package}"):
        sources.load(text)


def test_timm_by_name():
    pytest.importorskip("timm")
    source = sources.load("timm:resnet18:num_classes=4")
    assert source.model(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    assert source.sample == (3, 224, 224)
    with pytest.raises(UsageError, match="resnet18"):
        sources.load("timm:resnet19")


@pytest.mark.parametrize("saved", [True, False])
def test_hugging_face_from_a_folder(tmp_path, saved):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    model = transformers.ResNetForImageClassification(config)
    if saved:
        model.save_pretrained(tmp_path)
    else:
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    source = sources.load(f"hf:{tmp_path}")
    assert (source.sample, source.trained) == ((3, 224, 224), saved)
    assert source.model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)
    if saved:
        x = torch.randn(1, 3, 32, 32)
        assert torch.equal(source.model(x).logits, model.eval()(x).logits)


@pytest.mark.skipif(importlib.util.find_spec("onnx2torch") is None, reason="needs onnx2torch")
def test_an_onnx_file_keeps_its_zeros(tmp_path):
    # Two norms whose folded biases are equal: torch writes them once, with an Identity for the second name.
    convs = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)]
    model = nn.Sequential(*convs, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5)).eval()
    pb.prune(model, 0.9, scope="layerwise")
    x = torch.randn(1, 3, 8, 8)
    torch.onnx.export(model, (x,), str(tmp_path / "net.onnx"), dynamo=False)
    source = sources.load(str(tmp_path / "net.onnx"))
    assert torch.allclose(source.model(x), model(x), atol=1e-5)
    assert source.sample == (3, 8, 8)
    zeros = sum(int((p == 0).sum()) for p in source.model.parameters() if p.ndim > 1)
    assert zeros == sum(int((p == 0).sum()) for p in model.parameters() if p.ndim > 1)
