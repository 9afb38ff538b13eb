"""What a compiled network keeps in memory: bytes of weights per nonzero, floats of activations."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from prunebench.engine import available, compile_engine
from prunebench.engine.segment import Plan
from prunebench.models.resnet_cifar import resnet18_cifar

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")

PER_NONZERO = 6.5  # bytes: a value, an offset, and what rows and blocks add
PAIRS = 2.0  # arena, in the largest input and output of a layer


def sparse(model: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data[torch.rand(m.weight.shape, generator=g) < 0.9] = 0
    return model.eval()


@pytest.fixture(scope="module")
def networks():
    """name -> (model, the shape of an image), made once."""
    torch.manual_seed(0)
    with torch.device("cpu"):
        return {
            "resnet18_cifar": (sparse(resnet18_cifar((3, 32, 32), 10)), (3, 32, 32)),
            "resnet50": (sparse(torchvision.models.resnet50(weights=None)), (3, 224, 224)),
        }


def compiled(networks, name: str, n: int):
    model, shape = networks[name]
    x = torch.zeros(n, *shape)
    engine = compile_engine(model, x, threads=1)
    engine(x)
    assert engine.form == "traced"
    assert len(engine._segments) == 1
    return engine


def largest_pair(plan: Plan) -> int:
    """Bytes of the largest input and output of a layer together, for the images of a plan."""
    pairs = []
    for row in plan.rows:
        if row["op"] is not None:
            shapes = [plan.sizes[row["op"].inputs[0]], plan.sizes[row["op"]]]
            pairs.append(sum(c * h * w for c, h, w in shapes))
    return max(pairs) * 4 * plan.chunk


def check_weights(engine) -> None:
    nonzeros = sum(op.weights.nnz for s in engine._segments for op in s.layers)
    assert nonzeros > 1_000_000
    assert engine.nbytes <= PER_NONZERO * nonzeros, engine.nbytes / nonzeros


def check_arena(engine, chunk: int) -> None:
    plan = next(p for (_, images), p in engine._segments[0].plans.items() if images == chunk)
    assert plan.arena <= PAIRS * largest_pair(plan), plan.arena / largest_pair(plan)


@pytest.mark.parametrize("n", [1, 16])
def test_resnet18_cifar(networks, n):
    engine = compiled(networks, "resnet18_cifar", n)
    check_arena(engine, n)
    if n == 1:
        check_weights(engine)


def test_resnet50(networks):
    engine = compiled(networks, "resnet50", 1)
    check_weights(engine)
    check_arena(engine, 1)
