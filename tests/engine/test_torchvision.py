"""torchvision's classification models: right outputs, dense and pruned."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from prunebench.engine import available, compile_engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}"),
]

SIZES = {
    "resnet18": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "squeezenet1_1": 64, "shufflenet_v2_x0_5": 64,
    "densenet121": 48, "efficientnet_b0": 48, "googlenet": 64, "vgg11": 32, "regnet_y_400mf": 48, "convnext_tiny": 32,
    "vit_b_16": 224, "mnasnet0_5": 48, "resnext50_32x4d": 48,
}  # fmt: skip


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(**options).eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
        if isinstance(m, nn.Linear) and not m.weight.any():  # a head that starts at zero
            m.weight.normal_(0, 0.05)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_outputs(name):
    model = build(name)
    x = torch.randn(2, 3, SIZES[name], SIZES[name])
    for sparsity in (0.0, 0.9):
        for m in model.modules():
            if sparsity and isinstance(m, (nn.Conv2d, nn.Linear)):
                m.weight.masked_fill_(torch.rand_like(m.weight) < sparsity, 0)
        want = copy.deepcopy(model).double()(x.double())
        engine = compile_engine(model, x, threads=2)
        got = engine(x)
        assert got.shape == want.shape
        assert float((got - want).abs().max() / want.abs().max()) <= 1e-4
        kernels = {row["kernel"] for row in engine.summary()}
        assert ("csr" in kernels) == (sparsity > 0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "densenet121"])
def test_images_in_lanes(name):
    model = build(name)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.masked_fill_(torch.rand_like(m.weight) < 0.9, 0)
    x = torch.randn(18, 3, 32, 32)
    want = copy.deepcopy(model).double()(x.double())
    got = compile_engine(model, x[:2], threads=2)(x)
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-4
