"""pb.kernels.csr_matmul against float64 scipy, on every kernel set this CPU runs, and against hostile arguments."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.engine import available
from prunebench.kernels import csr_matmul, isa

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


def product64(m: scipy.sparse.csr_matrix, dense, bias=None, relu=False) -> np.ndarray:
    y = m.astype(np.float64) @ dense.astype(np.float64)
    y = y if bias is None else y + bias[:, None]
    return np.maximum(y, 0) if relu else y


def operands(rows, cols, n, density, seed, index=np.int32):
    rng = np.random.default_rng(seed)
    nnz = int(rows * cols * density)
    where = rng.integers(0, max(rows, 1), nnz), rng.integers(0, max(cols, 1), nnz)
    m = scipy.sparse.csr_matrix((rng.standard_normal(nnz).astype(np.float32), where), (rows, cols))
    dense = rng.standard_normal((cols, n)).astype(np.float32)
    return m, m.indptr.astype(index), m.indices.astype(index), dense, rng.standard_normal(rows).astype(np.float32)


@settings(max_examples=120, deadline=None)
@given(
    rows=st.integers(0, 70),
    cols=st.integers(0, 90),
    n=st.sampled_from([0, 1, 2, 7, 15, 16, 17, 33, 64, 100, 448, 500]),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
    relu=st.booleans(),
    with_bias=st.booleans(),
    threads=st.integers(1, 3),
    index=st.sampled_from([np.int32, np.int64]),
)
def test_matches_float64(rows, cols, n, density, seed, relu, with_bias, threads, index):
    m, indptr, indices, dense, bias = operands(rows, cols, n, density, seed, index)
    b = bias if with_bias else None
    got = csr_matmul(indptr, indices, m.data, m.shape, dense, bias=b, relu=relu, threads=threads)
    want = product64(m, dense, b, relu)
    assert got.shape == (rows, n)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-5 * max(1.0, np.abs(want).max(initial=0)))


def test_wide_matrices_span_blocks():
    m, indptr, indices, dense, bias = operands(9, 200_000, 5, 0.001, 0)
    np.testing.assert_allclose(
        csr_matmul(indptr, indices, m.data, m.shape, dense, bias), product64(m, dense, bias), atol=1e-4
    )
    m, indptr, indices, dense, _ = operands(5000, 200_000, 3, 1e-6, 1)  # hypersparse: the plain path
    np.testing.assert_allclose(
        csr_matmul(indptr, indices, m.data, m.shape, dense, relu=True), product64(m, dense, relu=True), atol=1e-5
    )


def test_unsorted_and_duplicate_entries_add_up():
    indptr, indices = np.array([0, 3, 3]), np.array([2, 0, 2])
    data, dense = np.array([1, 2, 4], np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    assert csr_matmul(indptr, indices, data, (2, 3), dense).tolist() == [[20, 27], [0, 0]]


def test_kind_of_the_result_follows_dense():
    m, indptr, indices, dense, _ = operands(4, 5, 3, 0.5, 0)
    assert isinstance(csr_matmul(indptr, indices, m.data, m.shape, dense), np.ndarray)
    t = csr_matmul(
        torch.from_numpy(indptr), torch.from_numpy(indices), torch.from_numpy(m.data), m.shape, torch.from_numpy(dense)
    )
    assert isinstance(t, torch.Tensor)
    np.testing.assert_allclose(t.numpy(), product64(m, dense), atol=1e-5)


def test_threads_agree_bit_for_bit():
    m, indptr, indices, dense, bias = operands(300, 400, 200, 0.1, 3)
    one = csr_matmul(indptr, indices, m.data, m.shape, dense, bias, threads=1)
    for threads in (2, 10_000):
        assert np.array_equal(one, csr_matmul(indptr, indices, m.data, m.shape, dense, bias, threads=threads))


def test_nan_passes_the_relu_where_a_weight_reaches_it():
    dense = np.full((2, 20), np.nan, np.float32)
    y = csr_matmul(np.array([0, 1, 1]), np.array([0]), np.ones(1, np.float32), (2, 2), dense, relu=True)
    assert np.isnan(y[0]).all()
    assert (y[1] == 0).all()


GOOD = {
    "indptr": np.array([0, 1, 2]), "indices": np.array([0, 1]), "data": np.ones(2, np.float32), "shape": (2, 2),
    "dense": np.ones((2, 3), np.float32),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"indptr": np.array([0, 2, 1])}, "not decrease"),
        ({"indptr": np.array([1, 1, 2])}, r"indptr\[0\]"),
        ({"indptr": np.array([0, 1, 3])}, "ends at 3"),
        ({"indptr": np.array([0, 1, 1])}, "ends at 1"),
        ({"indptr": np.array([0, -(2**62), 2])}, "not decrease"),
        ({"indptr": np.array([0, 2**62, 2**63 - 1])}, "ends at"),
        ({"indptr": np.array([0, 2])}, "indptr: length 2"),
        ({"indices": np.array([0, 2])}, "outside 0 .. 1"),
        ({"indices": np.array([0, -1])}, "outside 0 .. 1"),
        ({"indices": np.array([0, 2**40])}, "outside 0 .. 1"),
        ({"indices": np.array([0])}, "indices: length 1"),
        ({"shape": (-1, 2)}, "negative"),
        ({"shape": (2, 3)}, "dense: length 2"),
        ({"shape": (2**40, 2)}, "indptr: length 3"),
        ({"shape": (2, 2, 2)}, "3 numbers"),
        ({"bias": np.ones(3, np.float32)}, "bias: length 3"),
        ({"dense": np.ones((3, 2), np.float32).T}, "C-contiguous"),
        ({"dense": np.ones((2, 6), np.float32)[:, ::2]}, "C-contiguous"),
        ({"indices": np.zeros(4, np.int64)[::2]}, "C-contiguous"),
        ({"dense": np.ones(2, np.float32)}, "dimensions"),
        ({"threads": 0}, "threads"),
        ({"threads": -3}, "threads"),
    ],
)
def test_wrong_values(change, words):
    with pytest.raises(ValueError, match=words):
        csr_matmul(**{**GOOD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"data": np.ones(2)},
        {"dense": np.ones((2, 3))},
        {"indices": np.zeros(2, np.int16)},
        {"dense": [[1.0]]},
        {"indptr": np.zeros(3, np.uint64)},
        {"bias": np.ones(2)},
        {"dense": torch.ones(2, 3, dtype=torch.bfloat16)},
        {"threads": 1.5},
        {"shape": 3},
        {"shape": (2.0, 2)},
        {"data": np.ones(2, ">f4")},
    ],
)
def test_wrong_kinds(change):
    with pytest.raises(TypeError):
        csr_matmul(**{**GOOD, **change})


def test_isa_is_known():
    assert isa() in ("avx512", "avx2", "neon", "scalar")
