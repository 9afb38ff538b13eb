"""Shapes of the engine's operations, and what they fuse into."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from prunebench.engine.ir import Axis, Op, bins, fuse, shape_of, users


def product(x, kind="conv", **attrs):
    weights = SimpleNamespace(rows=8)
    axes = (Axis(3, 1, 1, 1, 1), Axis(3, 1, 1, 1, 1))
    return Op(kind, [x], attrs={"weights": weights, "channels": 4, "axes": axes, **attrs})


@pytest.mark.parametrize("ceil", [False, True])
def test_output_of_a_pooling_axis_as_torch(ceil):
    checked = 0
    for size in range(1, 14):
        x = torch.zeros(1, 1, 1, size)
        for taps in range(1, 6):
            for stride in range(1, 5):
                for pad in range(taps // 2 + 1):
                    for dilation in (1, 2, 3):
                        axis = Axis(taps, stride, dilation, pad, pad, ceil=ceil)
                        try:
                            want = F.max_pool2d(x, (1, taps), (1, stride), (0, pad), (1, dilation), ceil_mode=ceil)
                        except RuntimeError:
                            with pytest.raises(ValueError, match="doesn't fit"):
                                axis.output(size)
                            continue
                        assert axis.output(size) == want.shape[3], (size, axis)
                        checked += 1
    assert checked > 500


def test_uneven_padding():
    assert Axis(4, 1, 1, 1, 2).output(7) == 7
    assert Axis(2, 2, 3, 0, 1).output(6) == 2


@pytest.mark.parametrize(("mode", "most"), [("reflect", 4), ("circular", 5), ("replicate", 50), ("zeros", 50)])
def test_padding_a_mode_can_take(mode, most):
    assert Axis(3, 1, 1, most, most, mode).output(5) == 2 * most + 3
    if most < 50:
        with pytest.raises(ValueError, match=mode):
            Axis(3, 1, 1, most + 1, 0, mode).output(5)


def test_no_input_no_output():
    with pytest.raises(ValueError):
        Axis(1, 1, 1, 3, 3).output(0)


def shape(kind, *shapes, **attrs):
    return shape_of(Op(kind, [], attrs=attrs), list(shapes))


def test_shapes():
    x = Op("input", [])
    assert shape_of(product(x), [(4, 7, 9)]) == (8, 7, 9)
    assert shape_of(product(x, "linear"), [(1, 2, 2)]) == (8, 1, 1)
    assert shape("affine", (4, 2, 3), scale=[1] * 4) == (4, 2, 3)
    assert shape("add", (4, 2, 3), (4, 2, 3)) == (4, 2, 3)
    assert shape("gate", (4, 2, 3), (4, 1, 1)) == (4, 2, 3)
    assert shape("cat", (4, 2, 3), (1, 2, 3), (2, 2, 3)) == (7, 2, 3)
    assert shape("slice", (4, 2, 3), start=1, count=3) == (3, 2, 3)
    assert shape("shuffle", (4, 2, 3), groups=2) == (4, 2, 3)
    assert shape("mean", (4, 2, 3)) == (4, 1, 1)
    assert shape("flatten", (4, 2, 3)) == (24, 1, 1)
    axes = (Axis(2, 2, 1, 0, 0, ceil=True), Axis(3, 1, 1, 0, 0))
    assert shape("window", (4, 5, 3), axes=axes) == (4, 3, 1)
    assert shape("window", (4, 6, 9), axes=None, bins=(2, 3)) == (4, 2, 3)
    assert bins((2, 3), 6, 9) == (Axis(3, 3, 1, 0, 0), Axis(3, 3, 1, 0, 0))


def test_wrong_shapes():
    x = Op("input", [])
    for wrong, shapes in [(product(x), [(5, 7, 9)]), (product(x, "linear"), [(5, 1, 1)])]:
        with pytest.raises(ValueError, match="expected 4"):
            shape_of(wrong, shapes)
    for kind, shapes, attrs in [
        ("affine", [(5, 2, 3)], {"scale": [1] * 4}), ("add", [(4, 2, 3), (4, 2, 1)], {}),
        ("mul", [(4, 2, 3), (1, 1, 1)], {}),
        ("gate", [(4, 2, 3), (3, 1, 1)], {}), ("gate", [(4, 2, 3), (4, 1, 3)], {}), ("cat", [(4, 2, 3), (4, 2, 4)], {}),
        ("slice", [(4, 2, 3)], {"start": 2, "count": 3}), ("shuffle", [(4, 2, 3)], {"groups": 3}),
        ("window", [(4, 5, 6)], {"axes": None, "bins": (2, 2)}),
    ]:  # fmt: skip
        with pytest.raises(ValueError) as caught:
            shape(kind, *shapes, **attrs)
        assert "\n" not in str(caught.value)


def test_an_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match="nothing"):
        _ = Op("act", [], attrs={"fn": "relu"}).nothing


@pytest.mark.parametrize(("fn", "hi"), [("relu", math.inf), ("relu6", 6.0)])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_fuse_an_activation(fn, hi, kind):
    x = Op("input", [])
    p = product(x, kind)
    act = Op("act", [p], attrs={"fn": fn})
    after = Op("mean", [act])
    ops, outputs = fuse([x, p, act, after], [after])
    assert ops == [x, p, after]
    assert outputs == [after]
    assert (p.relu, p.hi, after.inputs) == (True, hi, [p])


def test_fuse_an_output():
    x = Op("input", [])
    p = product(x)
    act = Op("act", [p], attrs={"fn": "relu"})
    assert fuse([x, p, act], [act]) == ([x, p], [p])


def test_fuse_a_residual_and_its_relu():
    x = Op("input", [])
    first, second = product(x), product(x)
    total = Op("add", [first, second])
    act = Op("act", [total], attrs={"fn": "relu"})
    ops, outputs = fuse([x, first, second, total, act], [act])
    assert ops == [x, first, second]
    assert outputs == [second]
    assert second.inputs == [x, first]  # into the later one, when both are there
    assert second.relu
    assert "relu" not in first.attrs
    assert users(ops)[first] == [second]


@pytest.mark.parametrize("swapped", [False, True])
def test_fuse_a_sum_with_the_input(swapped):
    x = Op("input", [])
    p = product(x)
    total = Op("add", [x, p] if swapped else [p, x])
    assert fuse([x, p, total], [total]) == ([x, p], [p])
    assert p.inputs == [x, x]


@pytest.mark.parametrize("why", ["output", "read", "other", "relu first", "twice"])
def test_what_does_not_fuse(why):
    x = Op("input", [])
    p = product(x)
    act = Op("act", [p], attrs={"fn": "hardswish" if why == "other" else "relu"})
    total = Op("add", [act, x])
    ops, outputs = [x, p, act, total], [total]
    if why == "output":
        outputs = [total, p]
    elif why == "read":
        ops.append(Op("mean", [p]))
        outputs = [total, ops[-1]]
    elif why == "twice":  # a product plus itself
        total = Op("add", [p, p])
        ops, outputs = [x, p, total], [total]
    got, out = fuse(ops, outputs)
    assert out == outputs
    if why == "relu first":  # the ReLU fuses, the sum after it doesn't
        assert got == [x, p, total]
        assert total.inputs == [p, x]
    else:
        assert got == ops
        assert "relu" not in p.attrs
    assert p.inputs == [x]


def test_a_sum_that_others_read_too_or_that_is_given_out():
    for extra in ("read", "output"):
        x = Op("input", [])
        p = product(x)
        total = Op("add", [p, x])
        ops, outputs = [x, p, total], [total]
        if extra == "read":
            ops.append(Op("mean", [p]))
            outputs.append(ops[-1])
        else:
            outputs.append(p)
        assert fuse(ops, outputs) == (ops, outputs)
        assert p.inputs == [x]


def test_a_second_activation_stays():
    x = Op("input", [])
    p = product(x)
    first, second = (Op("act", [], attrs={"fn": f}) for f in ("relu", "relu6"))
    first.inputs, second.inputs = [p], [first]
    ops, outputs = fuse([x, p, first, second], [second])
    assert ops == [x, p, second]
    assert outputs == [second]
    assert p.hi == math.inf
