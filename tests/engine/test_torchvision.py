"""torchvision's classification models: right outputs, dense and pruned."""

from __future__ import annotations

import copy
import os

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
if os.environ.get("PRUNEBENCH_EVERY_MODEL"):  # an hour on one core, and 16 GB for the largest
    every = torchvision.models.list_models(module=torchvision.models)
    SIZES |= {
        name: 56 if name == "vit_h_14" else 96 if name == "inception_v3" else 64 for name in every if name not in SIZES
    }
    SIZES["maxvit_t"] = 224


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    options: dict[str, object] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_"):
        options["image_size"] = SIZES[name]
    model = getattr(torchvision.models, name)(**options).eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.Linear) and not m.weight.any():  # a head that starts at zero
            m.weight.normal_(0, 0.05)
        if hasattr(m, "layer_scale"):  # starts at 1e-6, which would hide a whole block
            m.layer_scale.uniform_(0.3, 1)
    return model


def settle(model: nn.Module, size: int) -> None:
    """Batch norms as after training: the output depends on the image, as it wouldn't with any statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.train()
        m.momentum = 1.0
        m.bias.normal_(0, 0.2)
    if norms:
        model(torch.randn(6, 3, size, size))
    for m in norms:
        m.eval()
        m.running_var.clamp_(min=0.2 * float(m.running_var.median())).mul_(1.2)  # above 1: rounding errors don't grow


def prune(model: nn.Module, sparsity: float) -> None:
    """Random zeros; what is left grows so that the signal keeps its size."""
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.masked_fill_(torch.rand_like(m.weight) < sparsity, 0).mul_((1 - sparsity) ** -0.5)


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """Relative to the largest output, once it is sure that images differ in their outputs."""
    assert float((want - want.mean(0)).abs().max() / want.abs().max()) >= 1e-3
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", SIZES)
def test_outputs(name):
    model = build(name)
    x = torch.randn(2, 3, SIZES[name], SIZES[name])
    for sparsity in (0.0, 0.9):
        prune(model, sparsity)
        settle(model, SIZES[name])
        want = copy.deepcopy(model).double()(x.double())
        engine = compile_engine(model, x, threads=2)
        got = engine(x)
        assert got.shape == want.shape
        one, five = engine(x[:1]), engine(x[[0, 1, 0, 1, 1]])  # other batch sizes than it was compiled for
        assert float((one - got[:1]).abs().max()) <= 1e-4 * float(want.abs().max())
        assert float((five - got[[0, 1, 0, 1, 1]]).abs().max()) <= 1e-4 * float(want.abs().max())
        # a deep random network makes more of a rounding error than 1e-4, torch's as well
        assert distance(got, want) <= max(1e-4, 3 * distance(model(x), want))
        assert engine.form == "traced"
        kernels = {row["kernel"] for row in engine.summary()}
        assert ("csr" in kernels) == (sparsity > 0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "densenet121"])
def test_images_in_lanes(name):
    model = build(name)
    prune(model, 0.9)
    settle(model, 32)
    x = torch.randn(18, 3, 32, 32)
    want = copy.deepcopy(model).double()(x.double())
    got = compile_engine(model, x[:2], threads=2)(x)
    assert distance(got, want) <= 1e-4
