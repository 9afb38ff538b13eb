"""The decoder in C gives NumPy's bits, writes nothing outside its output, and stops at numbers that don't fit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunebench as pb
from prunebench import formats
from prunebench.errors import UsageError
from prunebench.formats import bitmask, compiled, csr, delta
from prunebench.formats.checkpoint import Checkpoint
from prunebench.formats.compiled import Target, content

if compiled.decode is None:
    pytest.skip("the decoder was not built: no C compiler", allow_module_level=True)
ENCODINGS = {"bitmask": bitmask, "csr": csr, "delta": delta}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def sparse(rows, columns, kept, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    return weight * (torch.rand(rows, columns, generator=generator) < kept)


def by_numpy(encoding, parts, rows, columns, dtype):
    flat = torch.zeros(rows * columns, dtype=dtype)
    values, done = parts[encoding.VALUES], 0
    for places in encoding.positions(parts, rows, columns):
        flat[torch.from_numpy(places)] = values[done : done + len(places)]
        done += len(places)
    return flat.view(rows, columns)


def in_c(encoding, parts, rows, columns, dtype, scales=None):
    """Decoded into the middle of a buffer whose edges must stay."""
    buffer = torch.full((rows * columns + 128,), 7.0, dtype=dtype)
    out = buffer[64:-64]
    try:
        encoding.spread(parts, Target(parts[encoding.VALUES].to(dtype), scales, out, rows, columns))
    finally:
        assert (buffer[:64] == 7).all()
        assert (buffer[-64:] == 7).all()
    return out.view(rows, columns)


def bits(tensor):
    return content(tensor.contiguous()).tobytes()


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (3, 7), (7, 8), (5, 64), (4, 65), (64, 147), (2, 256), (2, 257), (9, 4609), (2, 65536), (2, 65537)],
)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 1.0])
def test_the_same_bits_as_numpy(name, dtype, rows, columns, kept):
    weight = sparse(rows, columns, kept, dtype, seed=columns)
    if not weight.isfinite().all() or kept == 1.0:
        weight = torch.where(weight == 0, torch.ones((), dtype=dtype), weight)
    encoding = ENCODINGS[name]
    parts = encoding.encode(weight)
    encoding.check(parts, rows, columns)
    found = in_c(encoding, parts, rows, columns, dtype)
    assert bits(found) == bits(by_numpy(encoding, parts, rows, columns, dtype)) == bits(weight + 0.0)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(1, 12),
    st.integers(1, 700),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_any_matrix_comes_back(name, rows, columns, kept, seed):
    weight = sparse(rows, columns, kept, seed=seed)
    encoding = ENCODINGS[name]
    parts = encoding.encode(weight)
    encoding.check(parts, rows, columns)
    assert bits(in_c(encoding, parts, rows, columns, torch.float32)) == bits(weight + 0.0)


@pytest.mark.parametrize("name", ENCODINGS)
def test_bits_of_nan_and_of_denormals_are_kept(name):
    words = np.zeros((3, 50), np.uint32)
    words[0, 3], words[1, 49], words[2, 0], words[2, 1] = 0x7F800001, 0xFFC12345, 1, 0x80000001
    weight = torch.from_numpy(words.view(np.float32))
    encoding = ENCODINGS[name]
    assert bits(in_c(encoding, encoding.encode(weight), 3, 50, torch.float32)) == words.tobytes()


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize(("rows", "columns", "kept"), [(5, 9, 0.3), (3, 700, 0.002), (40, 33, 1.0), (6, 20, 0.05)])
def test_scales_multiply_the_values_of_their_row(name, rows, columns, kept):
    weight = (100 * sparse(rows, columns, kept)).round()
    scales = torch.rand(rows, 1) + 0.1
    encoding = ENCODINGS[name]
    found = in_c(encoding, encoding.encode(weight), rows, columns, torch.float32, scales)
    assert torch.equal(found, weight * scales)


@pytest.mark.parametrize("values", [None, "fp16", "bf16", "int8"])
@pytest.mark.parametrize("format", sorted(ENCODINGS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_a_file_is_the_same_with_and_without(format, values, dtype, tmp_path, monkeypatch):
    state = {"a.weight": sparse(30, 70, 0.1, dtype), "b.weight": sparse(8, 3 * 9, 0.3, dtype).view(8, 3, 3, 3)}
    formats.save(state, tmp_path / "file", format=format, values=values)
    fast = pb.load(tmp_path / "file")
    monkeypatch.setattr(compiled, "decode", None)
    slow = pb.load(tmp_path / "file")
    assert all(bits(fast[n]) == bits(slow[n]) and fast[n].dtype == dtype for n in state)


LATER = {
    "csr": [("indptr", 1, -1), ("indptr", 2, 10**6), ("indptr", 1, 10**9), ("indices", 5, 60), ("indices", 0, 64)],
    "bitmask": [("bitmask", (0, 0), 255), ("bitmask", (3, 7), 255), ("bitmask", (19, 7), 255), ("bitmask", 2, 0)],
    "delta": [("steps8", 0, 255), ("steps8", -1, 255), ("steps8", 7, 0)],
}


@pytest.mark.parametrize(("name", "part", "at", "number"), [(n, *change) for n in LATER for change in LATER[n]])
def test_a_file_that_changes_after_its_check_is_refused_or_bounded(name, part, at, number):
    """As another process may change one that is mapped: 60 columns, 64 in the file's bits."""
    weight = sparse(20, 60, 0.04)
    encoding = ENCODINGS[name]
    parts = {n: t.clone() for n, t in encoding.encode(weight).items()}
    parts[part][at] = number
    with pytest.raises(ValueError, match="changed while it was read"):
        in_c(encoding, parts, 20, 60, torch.float32)


def test_a_changed_file_is_one_line(tmp_path):
    formats.save({"a.weight": sparse(20, 60, 0.1)}, tmp_path / "file", format="csr")
    checkpoint = Checkpoint(tmp_path / "file")
    checkpoint.parts("a.weight")["indices"][3] = 61
    with pytest.raises(UsageError, match="changed while it was read"):
        checkpoint.tensor("a.weight")


def test_wrong_calls_are_refused_before_anything_is_written():
    weight = sparse(4, 60, 0.2)
    parts = csr.encode(weight)
    starts, values = parts["indptr"].numpy().astype(np.int64), content(parts["data"])
    indices, out = content(parts["indices"]), np.full(4 * 60 * 4 + 8, 7, np.uint8)
    right = (starts, indices, 1, values, 4, None, out[:-8], 4, 60)
    compiled.decode.spread_csr(*right)
    wrong = {
        0: [starts[:-1], content(parts["indptr"]), starts.astype(np.int64)[::2], b"", None, 3],
        1: [indices[:-1], np.append(indices, np.uint8(0)), "x"],
        2: [0, 2, 4, 8, -1],
        3: [values[:-4], values[:-1], None],
        4: [0, 1, 2, 3, 8, 16, -4],
        5: [np.ones(4, np.float32)[:3].view(np.uint8), np.ones(5, np.float32).view(np.uint8), 1.0],
        6: [out, out[:-12], out[1:-7], bytes(960), out[:1920:2]],
        7: [3, 5, 0, -1, 2**62],
        8: [59, 61, 0, -60, 2**62, 2**63],
    }
    for place, others in wrong.items():
        for other in others:
            out[:] = 7
            words = [*right[:place], other, *right[place + 1 :]]
            with pytest.raises((ValueError, TypeError, BufferError, OverflowError)):
                compiled.decode.spread_csr(*words)
            assert (out[-8:] == 7).all()
    with pytest.raises(ValueError, match="codes of 5 bits"):
        compiled.decode.spread_delta(b"", 5, b"", 4, None, out[:0], 0, 1)
    with pytest.raises(ValueError, match="don't fit"):
        compiled.decode.check_bits(bytes(9), np.zeros(2, np.int64), 2, 33)


@pytest.mark.parametrize("out", ["strided", "integers", "complex", "half"])
def test_outputs_that_c_does_not_take(out, tmp_path):
    weight = (10 * sparse(6, 50, 0.2)).round()
    formats.save({"a.weight": weight}, tmp_path / "file", format="delta")
    into = {
        "strided": torch.zeros(50, 6).t(),
        "integers": torch.zeros(6, 50, dtype=torch.int8),
        "complex": torch.zeros(6, 50, dtype=torch.complex128),
        "half": torch.zeros(6, 50, dtype=torch.float16),
    }[out]
    Checkpoint(tmp_path / "file").into("a.weight", into)
    assert torch.equal(into.to(torch.complex128), weight.to(torch.complex128))
    assert math.isclose(float(into.to(torch.complex128).real.sum()), float(weight.sum()))
