"""The sparse convolution and linear layer against float64 torch: every configuration, every kernel set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from prunebench.engine import available

if available() is not None:
    pytest.skip(f"no native engine: {available()}", allow_module_level=True)

from prunebench.engine.ir import Op
from prunebench.engine.native_loader import native
from prunebench.engine.partition import Product
from prunebench.engine.products import product_op
from prunebench.engine.segment import Segment


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-6)) if want.numel() else 0.0


def pruned(layer: nn.Module, sparsity: float, seed: int) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    for p in layer.parameters():
        p.data.uniform_(-1, 1, generator=g)
    layer.weight.data[torch.rand(layer.weight.shape, generator=g) < sparsity] = 0
    return layer.eval().requires_grad_(False)


@pytest.fixture
def restore_isa():
    before = native().isa()
    yield
    native().use(before)


def segment(conv: nn.Module, relu: bool, threads: int, add: bool = False) -> Segment:
    """One layer on its own, with a ReLU or a residual sum to fuse."""
    ops = [Op("input", [], flat=isinstance(conv, nn.Linear))]
    ops.append(product_op(conv, [ops[0]], "layer"))
    if add:
        other = Op("input", [])
        ops = [ops[0], other, ops[1], Op("add", [ops[1], other])]
    if relu:
        ops.append(Op("act", [ops[-1]], attrs={"fn": "relu"}, flat=ops[0].flat))
    made = Segment(ops, [ops[-1]], threads)
    assert len(made.ops) == 2 + add  # fused
    return made


sizes = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 14, 16, 17, 31, 33])


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_convolution(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    cin, cout = groups * draw(st.sampled_from([1, 2, 5, 17])), groups * draw(st.sampled_from([1, 3, 8]))
    if draw(st.integers(0, 7)) == 0:
        groups, cout = cin, cin * draw(st.integers(1, 2))  # depthwise
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 5)))
    padding = draw(st.sampled_from([0, 1, 2, (3, 0), (0, 2), "same", "valid"]))
    stride = 1 if padding == "same" else (draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()), padding_mode=mode)
    seed = draw(st.integers(0, 10**6))
    pruned(conv, draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), seed)
    n = draw(st.sampled_from([1, 1, 2, 3, 7, 11, 16, 17, 32, 35]))
    x = torch.randn(n, cin, draw(sizes), draw(sizes), generator=torch.Generator().manual_seed(seed))
    order = draw(st.sampled_from(["nchw", "nhwc", "chwn", "slice"]))
    if order == "nhwc":
        x = x.to(memory_format=torch.channels_last)
    elif order == "chwn":
        x = x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    elif order == "slice":
        x = torch.stack([x, x], -1)[..., 0]
    try:
        want = conv.double()(x.double())
    except RuntimeError:
        assume(False)
    relu = draw(st.booleans())
    layer = segment(conv.float(), relu, draw(st.integers(1, 2)))
    want = want.relu() if relu else want
    with torch.inference_mode():
        assert relative(layer(x), want) < 1e-5


@pytest.mark.parametrize("name", native().isas())
@pytest.mark.parametrize(("n", "size"), [(1, 4), (1, 13), (1, 32), (3, 7), (16, 5), (16, 16), (37, 6)])
@pytest.mark.parametrize("cin", [3, 40])
def test_kernel_sets_agree(name, n, size, cin, restore_isa):
    conv = pruned(nn.Conv2d(cin, 24, 3, padding=1), 0.8, 1)
    x = torch.randn(n, cin, size, size, generator=torch.Generator().manual_seed(0))
    native().use(name)
    got = segment(conv, False, 2)(x)
    native().use("scalar")
    assert relative(got, segment(conv, False, 1)(x)) < 1e-5
    assert relative(got, conv.double()(x.double())) < 1e-5


@pytest.mark.parametrize("n", [0, 1, 2, 5, 16, 33, 500])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (10, 300), (300, 784), (70000, 3)])
def test_linear(n, relu, shape):
    cin, cout = shape
    linear = pruned(nn.Linear(cin, cout), 0.9, n)
    x = torch.randn(n, cin, generator=torch.Generator().manual_seed(n))
    layer = segment(linear, relu, 2)
    want = linear.double()(x.double())
    want = want.relu() if relu else want
    assert relative(layer(x), want) < 1e-5
    assert relative(layer(x.t().contiguous().t()), want) < 1e-5
    if n == 500 and not relu:
        alone = Product(linear.float(), 1)
        assert relative(alone(x.reshape(5, 100, cin)), want.reshape(5, 100, cout)) < 1e-5
        assert relative(alone(x[0]), want[0]) < 1e-5


def test_unbatched_and_empty():
    conv = pruned(nn.Conv2d(3, 4, 3, stride=2), 0.5, 0)
    layer = Product(conv, 1)
    x = torch.randn(3, 9, 8)
    assert relative(layer(x), conv(x)) < 1e-5
    assert layer(torch.randn(0, 3, 9, 8)).shape == (0, 4, 4, 3)


def test_residual_sum():
    conv = pruned(nn.Conv2d(5, 6, 3, padding=1), 0.7, 0)
    for n in (1, 3, 16, 20, 32):
        x = torch.randn(n, 5, 7, 9)
        want = (conv.double()(x.double())).float()
        conv.float()
        other = torch.randn_like(want)
        for add in (other, other.to(memory_format=torch.channels_last)):
            for relu in (False, True):
                sum_ = (want + add).relu() if relu else want + add
                assert relative(segment(conv, relu, 2, add=True)(x, add), sum_) < 1e-5


def test_subnormal_weights_count_as_zero():
    conv = pruned(nn.Conv2d(2, 2, 3), 0.0, 0)
    conv.weight.data[0] = 1e-41
    made = segment(conv, False, 1)
    assert made.layers[0].weights.nnz == conv.weight.numel() // 2
    made(torch.randn(1, 2, 5, 5))
    assert native().info(made.layers[0].weights.pack(1).native)["nnz"] == conv.weight.numel() // 2


def test_offsets_can_be_read_back():
    """Every layout's offsets come from those of the first one: several sizes and batches of one layer agree."""
    conv = pruned(nn.Conv2d(7, 9, (3, 5), padding=(1, 2), dilation=(2, 1)), 0.6, 3)
    made = segment(conv, False, 1)
    for n, h, w in ((1, 9, 9), (16, 9, 9), (5, 23, 6), (4, 9, 40), (1, 9, 9)):
        x = torch.randn(n, 7, h, w)
        assert relative(made(x), conv.double()(x.double())) < 1e-5
        conv.float()


def test_one_layout_costs_six_bytes_and_a_count():
    conv = pruned(nn.Conv2d(64, 64, 3, padding=1, bias=False), 0.9, 3)
    made = segment(conv, False, 1)
    made(torch.randn(1, 64, 16, 16))
    assert 6.0 < made.nbytes / made.layers[0].weights.nnz < 6.5


def test_pack_and_offsets_refuse_nonsense():
    weight = torch.randn(4, 18).numpy()
    for args in ((0, 3, 1), (3, 0, 1), (3, 3, 0), (3, 4, 1), (3, 3, 3), (70000, 1, 1)):
        with pytest.raises((ValueError, OverflowError)):
            native().pack(weight, *args)
    packed = native().pack(weight, 3, 3, 1, 2)
    for args in ((0, 1, 1, 1), (2, 40, 1, 1), (3, 5, 1, 1), (3, 40000, 1, 1), (3, 40, -1, 1), (3, 40, 1, 2)):
        with pytest.raises(ValueError, match="16 bits"):
            native().offsets(packed, *args)
