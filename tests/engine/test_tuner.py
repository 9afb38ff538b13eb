"""Tuning: right outputs, choices that can be kept and given back, and nothing measured twice."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from prunebench.engine import available, compile_engine, tuner
from prunebench.engine.choice import Choice
from prunebench.engine.native_loader import native
from prunebench.errors import UsageError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")

X = (2, 3, 12, 12)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(tuner, "_known", {})
    monkeypatch.setattr(tuner, "_ROUND", 0.002)


def network(width: int = 12, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 24, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data[torch.rand(m.weight.shape) < 0.85] = 0
    return model.eval()


def right(engine, model, *batches) -> bool:
    for n in batches:
        x = torch.randn(n, *X[1:])
        with torch.no_grad():
            want = model.double()(x.double())
        if not float((engine(x) - want).abs().max() / want.abs().max()) < 1e-5:
            return False
    model.float()
    return True


@pytest.mark.parametrize("n", [1, 4, 16])
def test_tuned_outputs_are_right(n):
    model = network()
    engine = compile_engine(model, torch.randn(n, *X[1:]), threads=1, tune=True)
    assert right(engine, model, 1, 2, n, 21)
    assert engine.choices


def test_choices_reproduce_the_plan():
    model, x = network(), torch.randn(4, *X[1:])
    tuned = compile_engine(model, x, threads=1, tune=True)
    tuned(x)
    choices = json.loads(json.dumps(tuned.choices))
    assert choices == tuned.choices
    again = compile_engine(model, x, threads=1, tune=choices)
    again(x)
    assert again.choices == choices
    assert [dict(r) for r in again.summary()] == [dict(r) for r in tuned.summary()]
    assert torch.equal(again(x), tuned(x))


def test_choices_are_obeyed():
    """Others than the model would take: a tile of one vector, channels one by one, one image in the lanes."""
    model, x = network(), torch.randn(16, *X[1:])
    plain = compile_engine(model, x, threads=1)
    plain(x)
    names = [op.name for op in plain._segments[0].layers]
    tiles = dict.fromkeys(names, (1, 1, 2))
    choices = [{"segment": 0, "images_at_a_time": n, **Choice((1,), tiles).as_dict()} for n in (1, 4, 16)]
    engine = compile_engine(model, x, threads=1, tune=choices)
    assert right(engine, model, 16, 1)
    engine(x)
    convs = [r for r in engine.summary() if r["kind"] == "conv"]
    assert {r["tile"] for r in convs} == {"1x1"}
    assert all(r["layout"].startswith("1 images") for r in convs)
    assert engine.summary() != plain.summary()


def test_without_tuning_two_plans_are_the_same():
    model, x = network(), torch.randn(4, *X[1:])
    a, b = (compile_engine(model, x, threads=1) for _ in range(2))
    assert torch.equal(a(x), b(x))
    assert a.summary() == b.summary()
    assert a.choices == b.choices == []
    plans = [list(e._segments[0].plans.values()) for e in (a, b)]
    assert [p.layouts for p in plans[0]] == [p.layouts for p in plans[1]]
    assert [p.arena for p in plans[0]] == [p.arena for p in plans[1]]


@pytest.mark.parametrize(
    "wrong",
    [
        "fast", 3, None, {}, ["x"], [{}], [{"segment": 0, "images_at_a_time": 1}],
        [{"segment": 0, "images_at_a_time": 1, "images": [3], "tiles": {}}],
        [{"segment": 0, "images_at_a_time": 1, "images": [1], "tiles": {"a": [0, 1, 1]}}],
        [{"segment": "x", "images_at_a_time": 1, "images": [1], "tiles": {}}],
        [{"segment": 0, "images_at_a_time": None, "images": [1], "tiles": {}}], [{"images": [1], "tiles": {}}],
    ],
)  # fmt: skip
def test_wrong_choices(wrong):
    with pytest.raises(UsageError) as caught:
        compile_engine(network(), torch.randn(X), threads=1, tune=wrong)
    assert "\n" not in str(caught.value)
    assert "tune" in str(caught.value)


@pytest.mark.parametrize("tile", [(4, 16, 2), (3, 100, 1), (100, 1, 1), (1, 1, 10**9), (4, 1, 100000)])
def test_a_tile_that_this_machine_lacks(tile):
    """Choices of another machine: never a wrong result, and the network still runs natively."""
    model, x = network(), torch.randn(X)
    names = ["0", "2", "5", "8"]
    choices = [
        {"segment": 0, "images_at_a_time": n, **Choice(tiles=dict.fromkeys(names, tile)).as_dict()} for n in (1, 4, 16)
    ]
    engine = compile_engine(model, x, threads=1, tune=choices)
    assert right(engine, model, 2, 16)
    assert engine.form == "traced"
    assert all(r["kernel"] == "csr" for r in engine.summary())


def test_a_tile_wider_than_this_machine_s():
    """Inside the region, but no kernel has it: more columns than fit the registers, or several with a stride of 3."""
    model, x = network(), torch.randn(16, *X[1:])
    for stride, tile in ((1, (4, 12, 1)), (3, (1, 4, 1))):
        model[0] = nn.Conv2d(3, 12, 3, stride, 1)
        model[0].weight.data[:, 1:] = 0
        model[-1] = nn.Linear(16 * (9 if stride == 1 else 1), 10)
        choices = [{"segment": 0, "images_at_a_time": 16, **Choice((16,), {"0": tile}).as_dict()}]
        engine = compile_engine(model.eval(), x, threads=1, tune=choices)
        assert right(engine, model, 16)
        assert engine.form == "traced"
        assert engine.choices == choices


def test_the_same_layers_are_not_measured_again(monkeypatch):
    model, x = network(), torch.randn(X)
    first = compile_engine(model, x, threads=1, tune=True)
    first(x)

    def never(*_):
        raise AssertionError("measured again")

    known = len(tuner._known)
    assert known
    monkeypatch.setattr(tuner, "_Bench", never)
    second = compile_engine(model, x, threads=1, tune=True)
    second(x)
    assert len(tuner._known) == known
    assert second.choices == first.choices
    assert second.summary() == first.summary()
    assert second.form == "traced"


def test_other_layers_are_measured():
    x = torch.randn(X)
    for i, width in enumerate((12, 20)):
        compile_engine(network(width), x, threads=1, tune=True)
        assert len(tuner._known) == i + 1


def test_a_choice_is_known_for_its_kernels_only(monkeypatch):
    segment = compile_engine(network(), torch.randn(X), threads=1)._segments[0]
    keys = {tuner._signature(segment, ((3, 12, 12),), n) for n in (1, 4)}
    before = native().isa()
    try:
        for isa in native().isas():
            native().use(isa)
            keys.add(tuner._signature(segment, ((3, 12, 12),), 1))
    finally:
        native().use(before)
    assert len(keys) == 1 + len(native().isas())
