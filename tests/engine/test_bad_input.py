"""Inputs that don't fit, don't lie in memory as usual, or hold NaN; and hostile CSR arrays."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunebench as pb
from prunebench.engine import available
from prunebench.errors import UsageError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


def pruned(model: nn.Module, sparsity: float = 0.8, seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data.uniform_(0.1, 1, generator=g)  # never zero but where it is pruned
            m.weight.data[torch.rand(m.weight.shape, generator=g) < 0.5] *= -1
            m.weight.data[torch.rand(m.weight.shape, generator=g) < sparsity] = 0
            assert m.bias is not None
            m.bias.data.uniform_(-1, 1, generator=g)
    return model.eval().requires_grad_(False)


def classifier(sparsity: float = 0.8) -> nn.Module:
    """8 x 8 images only: its head counts the pixels."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 5)]
    return pruned(nn.Sequential(*layers), sparsity)


def build(model: nn.Module, x: Tensor, threads: int = 1):
    return pb.compile(model, x, backend="csr", threads=threads)


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max()) if want.numel() else 0.0


@pytest.mark.parametrize("n", [1, 2, 16])
@pytest.mark.parametrize(
    "shape",
    [
        (3, 10, 8), (3, 8, 7), (3, 16, 16), (3, 4, 4), (3, 8, 16), (3, 0, 8), (2, 8, 8), (0, 8, 8), (48, 8, 8),
        (8, 8, 3), (3, 64), (192,), (3, 8, 8, 1), (),
    ],
    ids=str,
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(n, shape):
    engine = build(classifier(), torch.randn(2, 3, 8, 8))
    with pytest.raises(UsageError) as caught:
        engine(torch.randn(n, *shape))
    assert "\n" not in str(caught.value)
    x = torch.randn(n, 3, 8, 8)
    assert far(engine(x), classifier()(x)) < 1e-5  # a refusal leaves the engine as it was


KINDS = {
    "half": torch.ones(2, 3, 8, 8).half(),
    "bfloat16": torch.ones(2, 3, 8, 8).bfloat16(),
    "int64": torch.ones(2, 3, 8, 8, dtype=torch.int64),
    "uint8": torch.ones(2, 3, 8, 8, dtype=torch.uint8),
    "bool": torch.ones(2, 3, 8, 8, dtype=torch.bool),
    "complex": torch.ones(2, 3, 8, 8, dtype=torch.complex64),
    "meta": torch.ones(2, 3, 8, 8, device="meta"),
    "sparse": torch.ones(2, 3, 8, 8).to_sparse(),
    "numpy": np.zeros((2, 3, 8, 8), np.float32),
    "list": [torch.ones(2, 3, 8, 8)],
    "nothing": None,
    "number": 1.0,
}


@pytest.mark.parametrize("x", KINDS.values(), ids=KINDS)
def test_kinds_that_do_not_fit_are_refused(x):
    engine = build(classifier(), torch.randn(2, 3, 8, 8))
    with pytest.raises(UsageError, match="tensor") as caught:
        engine(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("example", [torch.ones(1, 3, 8, 8, device="meta"), torch.ones(1, 3, 8, 8).double(), None])
def test_examples_that_do_not_fit_are_refused(example):
    with pytest.raises(UsageError, match=r"example.input"):
        build(classifier(), example)


def test_one_layer_in_training_mode_is_refused_and_named():
    model = classifier()
    model[0].train()
    with pytest.raises(UsageError, match=r"layer '0' .*model\.eval\(\)"):
        build(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(UsageError, match="meta"):
        build(classifier().to("meta"), torch.randn(1, 3, 8, 8))


# ---- NaN and infinity --------------------------------------------------------------------------------------------

BAD = [float("nan"), float("inf"), -float("inf")]


def same_pattern(got: Tensor, want: Tensor) -> None:
    """NaN where torch has NaN, each infinity where torch has it, and elsewhere the same numbers."""
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.isposinf(), want.isposinf())
    assert torch.equal(got.isneginf(), want.isneginf())
    rest = want.isfinite()
    assert torch.allclose(got[rest], want[rest], rtol=1e-4, atol=1e-4)


ACTIVATIONS = [nn.Identity, nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.Hardswish, nn.ReLU6]


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 3, 16])
@pytest.mark.parametrize("bad", BAD)
def test_bad_values_pass_dense_layers_as_in_torch(act, n, bad):
    """No weight is zero, so every term that torch adds is added here, and no padding, which would multiply zeros."""
    model = pruned(nn.Sequential(nn.Conv2d(3, 8, 3), act(), nn.Conv2d(8, 4, 3, stride=2), act()), 0.0)
    engine = build(model, torch.randn(n, 3, 9, 9))
    x = torch.randn(n, 3, 9, 9, generator=torch.Generator().manual_seed(n))
    x[-1, 1, 2, 6] = bad
    same_pattern(engine(x), model(x))
    assert not torch.isfinite(engine(x)).all() or act in (nn.Sigmoid, nn.ReLU, nn.ReLU6, nn.Hardswish)


def reach(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Outputs that a nonzero weight connects to an input value that isn't finite."""
    twin = copy.deepcopy(conv)
    twin.weight.data = (conv.weight != 0).float()
    twin.bias = None
    return twin((~x.isfinite()).float()) > 0


@pytest.mark.parametrize("n", [1, 2, 16, 17])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (1, 1, 1), (5, 2, 1), (3, 1, 4)])
def test_bad_values_reach_what_a_nonzero_weight_connects(n, bad, kernel, stride, groups):
    conv = pruned(nn.Conv2d(4, 8, kernel, stride, kernel // 2, groups=groups), 0.7, kernel)
    engine = build(nn.Sequential(conv).eval(), torch.randn(n, 4, 11, 10))
    x = torch.randn(n, 4, 11, 10, generator=torch.Generator().manual_seed(n))
    clean = engine(x)
    x[0, 2, 4, 5] = x[-1, 1, 0, 9] = bad
    got, reached = engine(x), reach(conv, x)
    assert reached.any()
    assert not got[reached].isfinite().any()
    assert torch.allclose(got[~reached], clean[~reached], atol=1e-5)


@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("bad", BAD)
def test_bad_values_reach_what_a_linear_weight_connects(n, bad):
    linear = pruned(nn.Linear(40, 30), 0.9)
    engine = build(nn.Sequential(linear).eval(), torch.randn(n, 40))
    x = torch.randn(n, 40, generator=torch.Generator().manual_seed(n))
    column = int((linear.weight != 0).sum(0).argmax())
    clean = engine(x)
    x[-1, column] = bad
    got = engine(x)
    reached = torch.zeros_like(got, dtype=torch.bool)
    reached[-1] = linear.weight[:, column] != 0
    assert not got[reached].isfinite().any()
    assert torch.allclose(got[~reached], clean[~reached], atol=1e-5)


@pytest.mark.parametrize("n", [1, 16])
def test_nan_passes_a_fused_relu_sum_and_pool(n):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            return F.max_pool2d(F.relu(self.norm(self.a(x)) + self.b(x)), 2)

    model = pruned(Net(), 0.0)
    model.a.weight.data[1:] = 0
    x = torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(n))
    engine = build(model, x.clone())
    x[0, 0, 3, 3] = float("nan")
    got, want = engine(x), model(x)
    assert want.isnan().sum() == 4
    assert torch.equal(got.isnan(), want.isnan())


# ---- memory layouts ----------------------------------------------------------------------------------------------

LAYOUTS = {
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "all axes reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "sliced with steps": lambda x: x.repeat_interleave(2, 3).repeat_interleave(3, 2)[:, :, 1::3, ::2],
    "every other channel": lambda x: x.repeat_interleave(2, 1)[:, 1::2],
    "every other image": lambda x: x.repeat_interleave(2, 0)[::2],
    "part of a larger image": lambda x: F.pad(x, (3, 2, 1, 4), value=9.0)[:, :, 1:-4, 3:-2],
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "flipped": lambda x: x.flip(2, 3).flip(2, 3),
    "offset by one float": lambda x: torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),
    "read-only array": lambda x: frozen(x),
    "gradient wanted": lambda x: x.clone().requires_grad_() * 1.0,
    "leaf with gradient": lambda x: x.clone().requires_grad_(),
    "under vmap's view": lambda x: x.unflatten(0, (1, -1)).flatten(0, 1),
    "parameter": lambda x: nn.Parameter(x.clone()),
}


def frozen(x: Tensor) -> Tensor:
    array = x.numpy().copy()
    array.flags.writeable = False
    return torch.from_numpy(array)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("n", [1, 3, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_input(layout, n):
    model = classifier()
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))
    view = LAYOUTS[layout](x)
    assert torch.equal(view, x)
    before = view.detach().clone()
    engine = build(model, x)
    y = engine(view)
    assert not y.requires_grad
    assert far(y, model(x)) < 1e-5
    assert torch.equal(view, before)
    assert far(build(model, view)(x), model(x)) < 1e-5


@pytest.mark.parametrize("shape", [(16, 3, 8, 8), (1, 3, 8, 8)])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_expanded_inputs(shape, axis):
    """A stride of zero: many elements, one place in memory."""
    one = list(shape)
    one[axis] = 1
    x = torch.randn(one).expand(shape)
    model = classifier()
    engine = build(model, torch.randn(shape))
    assert far(engine(x), model(x)) < 1e-5
    assert far(build(model, x)(x), model(x)) < 1e-5


def test_the_output_belongs_to_the_caller():
    model = pruned(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    engine = build(model, torch.randn(4, 3, 6, 6))
    x, other = torch.randn(4, 3, 6, 6), torch.randn(4, 3, 6, 6)
    first = engine(x)
    kept = first.clone()
    second = engine(other)
    assert torch.equal(first, kept), "a later run wrote into an earlier result"
    assert torch.equal(engine(x), kept)
    assert torch.equal(engine(other), second)


# ---- batches, weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", [1, 2, 16])
def test_any_batch_after_any_example(example):
    model = classifier()
    engine = build(model, torch.randn(example, 3, 8, 8))
    for n in (0, 1, example + 1, 64, 2, 15, 129, 0, 1):
        x = torch.randn(n, 3, 8, 8)
        assert far(engine(x), model(x)) < 1e-5


def test_empty_example():
    model = classifier()
    engine = build(model, torch.randn(0, 3, 8, 8))
    for n in (0, 3):
        x = torch.randn(n, 3, 8, 8)
        assert far(engine(x), model(x)) < 1e-5


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_later_changes_of_the_weights_do_not_reach_the_engine(sparsity):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))
    pruned(model, sparsity)
    x = torch.randn(3, 3, 8, 8)
    want = model(x)
    engine = build(model, x)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(7)
    model[0].weight = nn.Parameter(torch.ones(6, 3, 3, 3))
    model.train()
    assert far(engine(x), want) < 1e-5
    del model
    assert far(engine(x), want) < 1e-5


# ---- hostile CSR arrays ------------------------------------------------------------------------------------------

BOUNDARY = [-(2**63), -(2**31), -1, 0, 1, 2, 3, 5, 2**16, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1]
integers = st.one_of(st.sampled_from(BOUNDARY), st.integers(-2, 8))
index_types = st.sampled_from([np.int32, np.int64])


def index_array(values: list[int], dtype: type) -> np.ndarray:
    return np.array(values, np.int64).astype(dtype)  # what doesn't fit wraps around: another hostile value


def is_valid(indptr: np.ndarray, indices: np.ndarray, data, shape, dense, bias) -> bool:
    """What csr_matmul promises to accept."""
    rows, cols = shape
    if rows < 0 or cols < 0 or len(indptr) != rows + 1 or len(indices) != len(data) or dense.shape[0] != cols:
        return False
    if bias is not None and len(bias) != rows:
        return False
    steps = [int(v) for v in indptr]
    if steps[0] != 0 or steps[-1] != len(indices) or any(b < a for a, b in pairwise(steps)):
        return False
    return all(0 <= int(i) < cols for i in indices)


def check_product(indptr, indices, data, shape, dense, bias, threads=1) -> bool:
    """Right when the arrays are valid, else ValueError; whether they were valid."""
    given = copy.deepcopy((indptr, indices, data, dense))
    arguments = (indptr, indices, data, shape, dense, bias)
    valid = is_valid(*arguments)
    if valid:
        want = np.zeros((shape[0], dense.shape[1]))
        for r in range(shape[0]):
            for k in range(int(indptr[r]), int(indptr[r + 1])):
                want[r] += float(data[k]) * dense[int(indices[k])].astype(np.float64)
        want = want if bias is None else want + bias[:, None]
        np.testing.assert_allclose(pb.kernels.csr_matmul(*arguments, threads=threads), want, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ValueError):
            pb.kernels.csr_matmul(*arguments, threads=threads)
    for now, before in zip((indptr, indices, data, dense), given, strict=True):
        assert np.array_equal(now, before)
    return valid


@settings(max_examples=400, deadline=None)
@given(
    indptr=st.lists(integers, min_size=0, max_size=6),
    indices=st.lists(integers, min_size=0, max_size=6),
    types=st.tuples(index_types, index_types),
    values=st.integers(0, 6),
    shape=st.tuples(integers, integers),
    operand=st.tuples(st.integers(0, 6), st.sampled_from([0, 1, 2, 17])),
    bias=st.none() | st.integers(0, 6),
    threads=st.sampled_from([1, 2, 2**31 - 1, 2**62]),
)
def test_arbitrary_arrays_are_right_or_refused(indptr, indices, types, values, shape, operand, bias, threads):
    check_product(
        index_array(indptr, types[0]), index_array(indices, types[1]), np.ones(values, np.float32), shape,
        np.ones(operand, np.float32), None if bias is None else np.ones(bias, np.float32), threads,
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    nnz=st.integers(1, 9),
    types=st.tuples(index_types, index_types),
)
def test_one_wrong_value_is_refused(data, rows, cols, nnz, types):
    """Valid arrays, then one entry of one of them replaced: the checks must not rest on each other."""
    cuts = sorted(data.draw(st.lists(st.integers(0, nnz), min_size=rows - 1, max_size=rows - 1)))
    indptr = index_array([0, *cuts, nnz], types[0])
    indices = index_array(data.draw(st.lists(st.integers(0, cols - 1), min_size=nnz, max_size=nnz)), types[1])
    values, dense = np.arange(1, nnz + 1, dtype=np.float32), np.arange(cols * 3, dtype=np.float32).reshape(cols, 3)
    assert check_product(indptr, indices, values, (rows, cols), dense, None)
    target = data.draw(st.sampled_from([indptr, indices]))
    where = data.draw(st.integers(0, len(target) - 1))
    target[where] = index_array([data.draw(integers)], target.dtype.type)[0]
    check_product(indptr, indices, values, (rows, cols), dense, None)


GOOD = {
    "indptr": np.array([0, 1, 2]), "indices": np.array([0, 1]), "data": np.ones(2, np.float32), "shape": (2, 2),
    "dense": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32),
}  # fmt: skip
ARRAYS = ("indptr", "indices", "data", "dense", "bias")


def test_the_good_arrays_are_good():
    assert pb.kernels.csr_matmul(**GOOD).tolist() == [[2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint32", "uint64", "float16", "float64", "complex64", "bool", "O", "S4", "U4", "M8[s]"]
)
def test_every_wrong_dtype_is_a_type_error(name, dtype):
    with pytest.raises(TypeError, match=name):
        pb.kernels.csr_matmul(**{**GOOD, name: np.zeros(GOOD[name].shape, dtype)})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("value", [3, "0123", b"0123", [0, 1, 2], (0.0, 1.0), object(), memoryview(b"01234567")])
def test_every_wrong_kind_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=name):
        pb.kernels.csr_matmul(**{**GOOD, name: value})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("how", ["step", "reversed", "expanded", "swapped bytes", "more dimensions", "fewer", "longer"])
def test_every_wrong_form_is_refused(name, how):
    good = GOOD[name]
    form = {
        "step": lambda: np.repeat(good, 2, axis=-1)[..., ::2],
        "reversed": lambda: good[..., ::-1],
        "expanded": lambda: np.broadcast_to(good.flat[0], good.shape),
        "swapped bytes": lambda: good.astype(good.dtype.newbyteorder()),
        "more dimensions": lambda: good[None],
        "fewer": lambda: good[:-1],
        "longer": lambda: np.concatenate([good, good[-1:]]),
    }[how]()
    with pytest.raises((TypeError, ValueError), match=name):
        pb.kernels.csr_matmul(**{**GOOD, name: form})


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, device="meta"), torch.ones(2).to_sparse(),
        torch.ones(4)[::2], torch.ones(1).expand(2), torch.ones(2, dtype=torch.float64),
    ],
    ids=["meta", "sparse", "step", "expanded", "float64"],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(tensor):
    with pytest.raises((TypeError, ValueError), match="data"):
        pb.kernels.csr_matmul(**{**GOOD, "data": tensor})


@pytest.mark.parametrize(
    "shape", [(2**31, 2), (2**63, 2), (2, 2**31), (2, 2**63 - 1), (2**200, 2**200), (-(2**63), 2), (2, -1), (0, 0)]
)
def test_huge_and_negative_shapes_are_refused(shape):
    with pytest.raises(ValueError):
        pb.kernels.csr_matmul(**{**GOOD, "shape": shape})


def test_an_output_that_fits_in_no_memory_is_refused():
    """One byte of input for each of them, and 2^62 bytes of result."""
    rows, n = 2**31 - 2, 2**31 - 1
    indptr = np.lib.stride_tricks.as_strided(np.zeros(1, np.int32), (rows + 1,), (0,))
    dense = np.zeros((0, n), np.float32)
    with pytest.raises((ValueError, MemoryError)):
        pb.kernels.csr_matmul(indptr, np.zeros(0, np.int32), np.zeros(0, np.float32), (rows, 0), dense)


def test_unaligned_arrays_are_right_or_refused():
    """Views that begin at an odd byte."""
    raw = np.zeros(4 * 6 + 1, np.uint8)
    dense = raw[1:].view(np.float32).reshape(2, 3)
    dense[:] = 1
    assert not dense.flags.aligned
    try:
        got = pb.kernels.csr_matmul(**{**GOOD, "dense": dense})
    except (TypeError, ValueError):
        return
    assert got.tolist() == [[2, 2, 2], [2, 2, 2]]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y


def test_a_model_of_two_inputs_is_refused():
    with pytest.raises(UsageError, match=r"can't be called with one tensor.*'y'"):
        build(TwoInputs().eval(), torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("example", [torch.ones(2, 4, dtype=torch.long), (torch.ones(2, 4), torch.ones(2, 4))])
def test_an_example_of_another_kind_is_named(example):
    words = "torch.int64" if isinstance(example, Tensor) else "tuple"
    with pytest.raises(UsageError, match=f"a float32 tensor of one batch.* not {words}"):
        pb.compile(nn.Linear(4, 2).eval(), example)


def test_the_module_of_an_exported_program_is_not_told_to_call_eval():
    program = torch.export.export(nn.Linear(4, 2).eval(), (torch.ones(2, 4),))
    with pytest.raises(UsageError, match="compile the model it was exported from"):
        pb.compile(program.module(), torch.ones(2, 4))


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Linear(4, 2).eval()
        expected = model(torch.ones(2, 4))
    assert torch.allclose(build(model, torch.ones(2, 4))(torch.ones(2, 4)), expected, atol=1e-6)


def test_an_engine_is_neither_copied_nor_pickled():
    engine = build(classifier(), torch.randn(1, 3, 8, 8))
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(UsageError, match="neither copied nor pickled"):
            attempt(engine.engine)
    with pytest.raises(UsageError, match="neither copied nor pickled"):
        copy.deepcopy(engine)
