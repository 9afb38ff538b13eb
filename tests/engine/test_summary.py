"""The layer table and the profile: what is in them, and that the numbers agree with each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunebench.engine import available, compile_engine
from prunebench.engine.summary import COLUMNS
from prunebench.models.resnet_cifar import resnet20

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


def sparse(model: nn.Module, share: float = 0.9) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data[torch.rand(m.weight.shape, generator=g) < share] = 0
    return model.eval()


@pytest.fixture(scope="module")
def compiled():
    torch.manual_seed(0)
    model, x = sparse(resnet20((3, 32, 32), 10)), torch.randn(2, 3, 32, 32)
    engine = compile_engine(model, x, threads=1)
    engine(x)
    return model, engine


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def test_columns(compiled):
    model, engine = compiled
    table = engine.summary()
    assert all(tuple(row) == COLUMNS == table.columns for row in table)
    assert sorted(row["shape"] for row in table) == sorted(tuple(m.weight.shape) for m in layers_of(model))
    assert {row["kernel"] for row in table} == {"csr"}
    assert all(row["us"] is None and row["gflops"] is None and row["layout"] and row["tile"] for row in table)
    nonzeros = sum(int(torch.count_nonzero(m.weight)) for m in layers_of(model))
    sizes = [torch.Size(row["shape"]).numel() for row in table]
    assert round(sum(s * (1 - row["sparsity"]) for s, row in zip(sizes, table, strict=True))) == nonzeros


def test_text(compiled):
    lines = str(compiled[1].summary()).splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert set(lines[1]) == {"-", " "}
    assert len(lines) == 2 + len(compiled[1].summary())


def test_bytes_are_the_engine_s(compiled):
    _, engine = compiled
    assert sum(row["bytes"] for row in engine.summary()) == engine.nbytes
    assert all(row["bytes"] > 0 for row in engine.summary())


def test_bytes_with_layers_that_torch_runs():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softmax(1), nn.Conv2d(8, 2048, 32)).eval()
    model[0].weight.data[:, :, 1:] = 0  # the last one is dense and large
    engine = compile_engine(model, torch.randn(1, 3, 34, 34), threads=1)
    engine(torch.randn(1, 3, 34, 34))
    table = engine.summary()
    assert sorted(row["kernel"] for row in table) == ["csr", "torch"]
    assert sum(row["bytes"] for row in table) == engine.nbytes


def test_weights_that_are_shared_count_once():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    conv.weight.data[:, :, 1:] = 0
    engine = compile_engine(nn.Sequential(conv, nn.ReLU(), conv).eval(), torch.randn(1, 4, 6, 6), threads=1)
    engine(torch.randn(1, 4, 6, 6))
    assert sum(row["bytes"] for row in engine.summary()) == engine.nbytes


@pytest.mark.parametrize("n", [1, 5, 16])
def test_profile(compiled, n):
    model, engine = compiled
    x = torch.randn(n, 3, 32, 32)
    table = engine.profile(x, rounds=2)
    layers = [row for row in table if row["kind"] != "other"]
    assert len(layers) == len(layers_of(model))
    assert all(row["us"] > 0 and row["gflops"] > 0 for row in layers)
    others = {row["layer"]: row for row in table if row["kind"] == "other"}
    assert {"(halo)", "(move)", "(mean)"} <= set(others)
    assert all(row["us"] > 0 and row["gflops"] is None and row["bytes"] == 0 for row in others.values())
    pixels = {}
    hooks = [m.register_forward_hook(lambda m, _, y: pixels.update({m: y[0, 0].numel()})) for m in layers_of(model)]
    model(x[:1])
    for hook in hooks:
        hook.remove()
    want = sum(2 * int(torch.count_nonzero(m.weight)) * p * n for m, p in pixels.items())
    assert sum(row["us"] * row["gflops"] * 1e3 for row in layers) == pytest.approx(want, rel=1e-6)
    assert sum(row["bytes"] for row in table) == engine.nbytes
    assert "other" in str(table)


def test_a_profile_changes_nothing(compiled):
    _, engine = compiled
    x = torch.randn(3, 3, 32, 32)
    before, y = engine.summary(), engine(x)
    engine.profile(x, rounds=1)
    assert torch.equal(engine(x), y)
    after = engine.summary()
    assert [r["bytes"] for r in before] == [r["bytes"] for r in after]
    assert all(r["us"] is None for r in after)
