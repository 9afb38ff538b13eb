"""Tensors and arrays that are no plain memory: refused in one line, or right; never read where nothing is."""

from __future__ import annotations

import mmap
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import prunebench as pb
from prunebench.engine import available
from prunebench.errors import UsageError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")

SHAPE = (2, 3, 8, 8)


@pytest.fixture(scope="module")
def engine():
    """With its short cut for SHAPE taken once: what comes after it must be seen to be strange all the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    for p in model.parameters():
        p.requires_grad_(False)[torch.rand(p.shape) < 0.8] = 0
    made = pb.compile(model, torch.randn(SHAPE), tune=False)
    torch.testing.assert_close(made(x := torch.randn(SHAPE)), model(x), rtol=1e-4, atol=1e-4)
    return made


def emptied(shape):
    tensor = torch.ones(shape)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake(shape):
    with FakeTensorMode():
        return torch.ones(shape)


STRANGE = {
    "emptied": emptied,
    "fake": fake,
    "zero": torch._efficientzerotensor,
    "mkldnn": lambda shape: torch.ones(shape).to_mkldnn(),
    "sparse": lambda shape: torch.ones(shape).to_sparse(),
    "meta": lambda shape: torch.ones(shape, device="meta"),
}


@pytest.mark.parametrize("make", [*STRANGE.values(), lambda shape: torch.nested.nested_tensor(list(torch.ones(shape)))])
def test_an_engine_refuses_tensors_without_memory(engine, make):
    with pytest.raises(UsageError) as error:
        engine(make(SHAPE))
    assert "\n" not in str(error.value)


TRANSFORMS = {
    "vmap": lambda f, x: torch.vmap(f)(x[None]),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "functionalize": lambda f, x: torch.func.functionalize(f)(x),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_an_engine_inside_a_transform_is_refused(engine, transform):
    with pytest.raises(UsageError, match="memory of its own"):
        transform(engine, torch.ones(SHAPE))


GOOD = {
    "indptr": np.array([0, 1, 2]), "indices": np.array([0, 1]), "data": np.ones(2, np.float32), "shape": (2, 2),
    "dense": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32),
}  # fmt: skip


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_csr_matmul_refuses_tensors_without_memory(make):
    with pytest.raises((TypeError, ValueError), match="dense: "):
        pb.kernels.csr_matmul(**{**GOOD, "dense": make((2, 3))})


def test_csr_matmul_inside_a_transform_is_refused():
    with pytest.raises(TypeError, match="memory of its own"):
        torch.vmap(lambda dense: pb.kernels.csr_matmul(**{**GOOD, "dense": dense}))(torch.ones(4, 2, 3))


def test_csr_matmul_reads_no_further_than_a_storage_that_was_cut():
    tensor = torch.ones(2, 3)
    tensor.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="dense: its memory is smaller"):
        pb.kernels.csr_matmul(**{**GOOD, "dense": tensor})


@pytest.mark.parametrize(
    "change",
    [
        {"dense": np.ma.masked_array(np.ones((2, 3), np.float32), mask=True)},
        {"data": np.ma.masked_array(np.ones(2, np.float32))},
        {"shape": {0: 2, 1: 2}},
        {"shape": "22"},
        {"shape": {2, 3}},
        {"relu": np.ones(2)},
        {"relu": "yes"},
        {"relu": None},
        {"threads": True},
        {"dense": np.ones((2, 3), [("x", np.float32)])},
        {"indices": np.zeros(2, "m8[s]")},
    ],
    ids=str,
)
def test_csr_matmul_refuses_what_it_would_misread(change):
    with pytest.raises(TypeError):
        pb.kernels.csr_matmul(**{**GOOD, **change})


class Tensor(torch.Tensor):
    """A subclass without memory of its own."""


class Array(np.ndarray):
    """A subclass that lies about its elements to those who ask it, not its memory."""

    def __getitem__(self, key):
        return np.float32(99)


SUBCLASSES = {
    "tensor": torch.ones(2, 3).as_subclass(Tensor),
    "parameter": nn.Parameter(torch.ones(2, 3)),
    "negative": torch.imag(torch.complex(torch.ones(2, 3), -torch.ones(2, 3)).conj()).contiguous(),
    "matrix": np.ones((2, 3), np.float32).view(np.matrix),
    "array": np.ones((2, 3), np.float32).view(Array),
    "read-only": np.frombuffer(np.ones(6, np.float32).tobytes(), np.float32).reshape(2, 3),
    "mapped": np.frombuffer(mmap.mmap(-1, 24), np.float32).reshape(2, 3),
    "inference": torch.inference_mode()(lambda: torch.ones(2, 3))(),
}


@pytest.mark.parametrize("dense", SUBCLASSES.values(), ids=SUBCLASSES)
def test_csr_matmul_reads_the_memory_of_subclasses(dense):
    got = pb.kernels.csr_matmul(**{**GOOD, "dense": dense})
    assert type(got) is (torch.Tensor if isinstance(dense, torch.Tensor) else np.ndarray)
    assert got.tolist() == dense.tolist()  # the weights are the identity


def oracle(indptr, indices, data, dense, bias, relu=False, flush=True):
    """(result, sum of the terms' sizes) in float64; flush: subnormal values count as zero."""
    tiny = np.finfo(np.float32).tiny if flush else 0.0
    data, dense = (np.where(np.abs(a) < tiny, 0, a).astype(np.float64) for a in (data, dense))
    want = np.zeros((len(indptr) - 1, dense.shape[1])) + (0 if bias is None else bias.astype(np.float64)[:, None])
    size = np.abs(want)
    for r in range(len(indptr) - 1):
        for k in range(indptr[r], indptr[r + 1]):
            term = data[k] * dense[indices[k]]
            want[r] += term
            size[r] += np.abs(term)
    return (np.where(want < 0, 0, want) if relu else want), size


def like(got, want, size):
    """Where a float32 result is a float64 one: NaN where it is, the same infinity, else to within rounding."""
    rounding = np.abs(got - want) <= 1e-5 * size + 1e-28
    return (np.isnan(got) & np.isnan(want)) | (got == want) | rounding


# No product of two finite ones overflows, nor does a sum of them.
VALUES = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-45, 1e-39, 3e-38, 1e15, -1e15, np.inf, -np.inf, np.nan])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_odd_values_are_those_of_float64(data):
    """Subnormals, infinities and NaN through every path: one column, a tile, a tile that isn't full."""
    draw = data.draw
    rows, cols, n = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 16, 17, 130]))
    named = [draw(st.lists(st.integers(0, cols - 1), max_size=5)) for _ in range(rows)]
    indptr = np.cumsum([0, *map(len, named)])
    indices = np.array([c for row in named for c in row], np.int64)
    values = np.array(draw(st.lists(VALUES, min_size=len(indices), max_size=len(indices))), np.float32)
    column = np.array(draw(st.lists(VALUES, min_size=cols, max_size=cols)), np.float32)
    dense = np.repeat(column[:, None], n, axis=1)
    bias = draw(st.none() | st.lists(VALUES, min_size=rows, max_size=rows).map(lambda v: np.array(v, np.float32)))
    relu = draw(st.booleans())
    got = pb.kernels.csr_matmul(indptr, indices, values, (rows, cols), dense, bias, relu, draw(st.integers(1, 3)))
    with np.errstate(invalid="ignore"):
        flushed, kept = (oracle(indptr, indices, values, dense, bias, relu, flush) for flush in (True, False))
        right = like(got, *flushed) | like(got, *kept)
    assert right.all(), (got, flushed, kept)


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(0, 15), n=st.sampled_from([1, 3, 16, 40]), seed=st.integers(0, 99))
def test_operands_that_overlap_are_read_as_they_were(offset, n, seed):
    """data, bias and dense are views of one buffer; the result is a new array, so nothing is written into them."""
    buffer = np.random.default_rng(seed).standard_normal(400).astype(np.float32)
    kept = buffer.copy()
    dense = buffer[offset : offset + 4 * n].reshape(4, n)
    values, bias = buffer[offset + 1 : offset + 7], buffer[offset + 2 : offset + 5]
    indptr, indices = np.array([0, 2, 4, 6], np.int32), np.array([0, 1, 1, 2, 2, 3], np.int32)
    got = pb.kernels.csr_matmul(indptr, indices, values, (3, 4), dense, bias)
    assert like(got, *oracle(indptr, indices, values, dense, bias)).all()
    assert np.array_equal(buffer, kept)
    assert not np.shares_memory(got, buffer)


@pytest.mark.parametrize("n", [1, 40])
def test_arrays_changed_by_another_thread_lead_nowhere_else(n):
    """The lock is released during the product: right for one of the states that the arrays had, or refused."""
    rows, cols, nnz = 64, 300, 6400
    rng = np.random.default_rng(0)
    indices, wrong = rng.integers(0, cols, nnz), np.full(nnz, 2**40)
    indptr = np.linspace(0, nnz, rows + 1).astype(np.int64)
    shared, pointers, over = indices.copy(), indptr.copy(), threading.Event()

    def spoil():
        while not over.is_set():
            shared[:] = wrong
            pointers[1:-1] = 2**62
            pointers[:] = indptr
            shared[:] = indices

    thread = threading.Thread(target=spoil)
    thread.start()
    outcomes = set()
    try:
        for _ in range(300):
            try:
                got = pb.kernels.csr_matmul(
                    pointers, shared, np.ones(nnz, np.float32), (rows, cols), np.ones((cols, n), np.float32)
                )
                # Whatever columns were read, all of them are ones: a row adds up to how many entries it has.
                assert got.sum() == nnz * n
                outcomes.add("right")
            except ValueError:
                outcomes.add("refused")
    finally:
        over.set()
        thread.join()
    assert outcomes
