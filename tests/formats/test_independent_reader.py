"""docs/file-formats.md is enough: a reader written from it alone, with json, struct and numpy, reads every file."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from golden_state import golden_state

GOLDEN = Path(__file__).parent / "golden"
KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "U16": "<u2", "U8": "u1"}


def array(kind: str, raw: bytes) -> np.ndarray:
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, KINDS[kind])


def read(content: bytes) -> dict[str, np.ndarray]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header.pop("__metadata__")["prunebench"])
    stored = {}
    for name, told in header.items():
        begin, end = told["data_offsets"]
        raw = content[8 + length + begin : 8 + length + end]
        stored[name] = array(told["dtype"], raw).reshape(told["shape"])
    if about["schema"] == 1:
        state = {name: bitmask(stored, name, stored.pop(f"{name}.shape").tolist()) for name in about["bitmask"]}
    else:
        assert about["schema"] == 2
        state = {name: tensor(stored, name, told) for name, told in about["tensors"].items()}
    return {**stored, **state}


def tensor(stored: dict, name: str, told: dict) -> np.ndarray:
    stem = name[: -len(".weight")] if name.endswith(".weight") else name
    shape = told["shape"]
    if told["encoding"] == "dense":
        values = stored.pop(name)
    elif told["encoding"] == "bitmask":
        assert stored.pop(f"{stem}.shape").tolist() == [shape[0], int(np.prod(shape[1:]))]
        values = bitmask(stored, stem, shape)
    elif told["encoding"] == "csr":
        indptr, indices, data = (stored.pop(f"{stem}.{part}") for part in ("indptr", "indices", "data"))
        values = np.zeros((shape[0], int(np.prod(shape[1:]))), data.dtype)
        for row in range(shape[0]):
            for at in range(indptr[row], indptr[row + 1]):
                values[row, indices[at]] = data[at]
    else:
        assert told["encoding"] == "delta"
        values = delta(stored, stem, int(np.prod(shape)))
    values = values.reshape(shape)
    if told["values"] == "I8":
        scales = stored.pop(f"{stem}.weight_scale")
        values = values.astype("<f4") * scales.reshape(-1, *[1] * (len(shape) - 1))
    return values.astype("<f4" if told["dtype"] == "BF16" else KINDS[told["dtype"]])


def bitmask(stored: dict, stem: str, shape: list[int]) -> np.ndarray:
    bits, compressed = stored.pop(f"{stem}.bitmask"), stored.pop(f"{stem}.compressed")
    offsets = stored.pop(f"{stem}.row_offsets")
    values = np.zeros((shape[0], int(np.prod(shape[1:]))), compressed.dtype)
    for row in range(values.shape[0]):
        at = offsets[row]
        for column in range(values.shape[1]):
            if bits[row, column // 8] >> (column % 8) & 1:
                values[row, column] = compressed[at]
                at += 1
    return values.reshape(shape)


def delta(stored: dict, stem: str, count: int) -> np.ndarray:
    (width,) = [w for w in (4, 8, 16) if f"{stem}.steps{w}" in stored]
    codes = stored.pop(f"{stem}.steps{width}").tolist()
    if width == 4:
        codes = [half for byte in codes for half in (byte & 15, byte >> 4)]
    compressed = stored.pop(f"{stem}.values")
    values, place, used = np.zeros(count, compressed.dtype), -1, 0
    for code in codes:
        place += code or 2**width - 1
        if code:
            values[place] = compressed[used]
            used += 1
    assert used == len(compressed)
    return values


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_golden_file_is_read(path):
    found, wanted = read(path.read_bytes()), golden_state()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == tuple(value.shape)
        atol = 4.25 / 127 / 2 * 1.01 if "int8" in path.stem else 0
        np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=atol)
