"""Which parts of a traced model become segments, and that writes through parts of a tensor are kept."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.engine import available, compile_engine

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


def pruned(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for m in model.eval().requires_grad_(False).modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.normal_(0, 0.3).masked_fill_(torch.rand_like(m.weight) < 0.7, 0)
    return model


def check(model: nn.Module, x: torch.Tensor, example: torch.Tensor | None = None):
    want = copy.deepcopy(model).double()(x.double())
    engine = compile_engine(model, x if example is None else example, threads=1)
    assert float((engine(x) - want).abs().max() / want.abs().max()) <= 1e-4
    return engine


class Parts(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(11, 4, 1)
        self.part = part

    def forward(self, x):
        x = self.a(x).relu()
        left, right = self.part(x)
        return self.c(torch.cat((right, self.b(left)), 1))


PARTS = {
    "split": lambda x: (x.split((5, 5, 2), 1)[0], x.split((5, 5, 2), 1)[1]),
    "split function": lambda x: torch.split(x, 5, dim=1)[:2],
    "chunk": lambda x: (x.chunk(3, dim=1)[2].repeat(1, 2, 1, 1)[:, :5], torch.chunk(x, 2, 1)[1][:, 1:]),
    "slice": lambda x: (x[:, 2:7], x[:, 7:, :, :]),
    "slice from the start": lambda x: (x[:, :5], x[:, :5, ...]),
    "narrow": lambda x: (x.narrow(1, 1, 5), torch.narrow(x, 1, 7, 5)),
    "negative dimension": lambda x: (x.split(5, -3)[0], torch.split(x, 5, dim=-3)[1]),
}
NATIVE = set(PARTS) - {"chunk", "split function"}  # repeat and a slice of a tuple are torch's


@pytest.mark.parametrize("name", PARTS)
def test_channel_ranges(name):
    for n in (1, 5, 16):
        engine = check(pruned(Parts(PARTS[name])), torch.randn(n, 3, 6, 7))
        assert engine.form == "traced"
        assert len(engine._segments) == 1 or name not in NATIVE


class Writes(nn.Module):
    """Writes into a view of a tensor that is read as a whole afterwards."""

    def __init__(self, view, write):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.view, self.write = view, write

    def forward(self, x):
        x = self.a(x)
        self.write(self.view(x))
        return self.b(x)


@pytest.mark.parametrize("write", ["setitem", "zero_", "fill_", "relu_", "add_", "copy_", "leaky", "elu", "hardtanh"])
@pytest.mark.parametrize(
    "view", ["slice", "chunk", "narrow", "flatten", "view", "identity", "contiguous", "module", "dropout"]
)
def test_writes_through_views(view, write):
    """A blank example hides what a wrong engine would do, so nothing is given up by comparing."""
    views = {
        "slice": lambda x: x[:, 2:5], "chunk": lambda x: x.chunk(2, 1)[1], "narrow": lambda x: x.narrow(1, 1, 3),
        "flatten": lambda x: x.flatten(1), "view": lambda x: x.view(x.size(0), -1), "identity": lambda x: x,
        "contiguous": lambda x: x.contiguous(), "module": nn.Sequential(nn.Identity(), nn.Flatten()),
        "dropout": lambda x: F.dropout(x, 0.5, False),
    }  # fmt: skip
    writes = {
        "setitem": lambda v: v.__setitem__((slice(None), 0), 3.0), "zero_": lambda v: v.zero_(),
        "fill_": lambda v: v.fill_(2.0), "relu_": lambda v: v.relu_(), "add_": lambda v: v.add_(1.0),
        "copy_": lambda v: v.copy_(v * 2), "leaky": lambda v: F.leaky_relu(v, 0.2, True),
        "elu": lambda v: F.elu(v, 1.0, True), "hardtanh": lambda v: F.hardtanh(v, -0.3, 0.3, True),
    }  # fmt: skip
    model = pruned(Writes(views[view], writes[write]))
    with torch.no_grad():
        model.a.bias.zero_()
    x = torch.randn(2, 3, 5, 5)
    check(model, x, torch.zeros_like(x))


class Sequence(nn.Module):
    """A linear layer on (N, H, W, C), inside a container, beside an operation that torch runs."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x):
        return self.block(self.a(x).permute(0, 2, 3, 1)).mean((1, 2))


def test_linear_layers_of_sequences_run_natively():
    engine = check(pruned(Sequence()), torch.randn(3, 3, 16, 16))
    assert engine.form == "traced"
    assert [row["kernel"] for row in engine.summary()] == ["csr"] * 3


def test_a_ceiling_pool_on_a_map_smaller_than_its_window():
    pools = (nn.AvgPool2d(2, 2, ceil_mode=True), nn.MaxPool2d((3, 2), 3, ceil_mode=True))
    for pool in pools:
        model = pruned(nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), pool, nn.Conv2d(5, 3, 1)))
        for size in ((1, 6), (2, 1), (1, 1)):
            engine = check(model, torch.randn(3, 2, *size))
            assert (engine.form, len(engine._segments)) == ("traced", 1)


def test_a_layer_too_large_for_native_offsets_is_left_to_torch_alone():
    layers = (
        nn.Conv2d(3, 512, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(512, 4, 3, padding=1),
        nn.Conv2d(4, 3, 3, padding=1),
    )
    model, x = pruned(nn.Sequential(*layers)), torch.randn(1, 3, 256, 256)
    engine = check(model, x)
    assert engine.form == "traced"
    assert [row["kernel"] for row in sorted(engine.summary(), key=lambda r: r["layer"])] == ["csr", "torch", "csr"]
