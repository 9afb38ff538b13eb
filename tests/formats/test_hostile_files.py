"""A file that lies is one line and takes no memory: lengths, indices, counts, scales, sizes, names, JSON."""

import contextlib
import json
import tracemalloc

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunebench as pb
from prunebench import formats
from prunebench.errors import UsageError
from prunebench.formats import container, version2

pytestmark = pytest.mark.usefixtures("decoder")

MATRIX = torch.zeros(6, 40)
MATRIX[0, 1], MATRIX[0, 39], MATRIX[2, 20], MATRIX[5, 0] = 1.0, 2.0, 3.0, 4.0
WIDE = torch.zeros(2, 4000)
WIDE[0, 3500] = WIDE[1, 17] = 1.0
NEAR = torch.zeros(20, 30)
NEAR[:, ::6] = 1.0
STATE = {"fc.weight": MATRIX, "wide.weight": WIDE, "near.weight": NEAR, "fc.bias": torch.ones(6)}


def parts_of(format: str, values: str | None = "int8") -> tuple[dict, dict]:
    """(stored tensors, what the metadata says) of a good file, to be spoilt."""
    tensors, metadata = container.views(bytearray(version2.to_bytes(STATE, format, values)))
    return {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(metadata["prunebench"])


def refused(tensors: dict, about: object, words: str) -> None:
    content = safetensors.torch.save(tensors, {"prunebench": about if isinstance(about, str) else json.dumps(about)})
    with pytest.raises(UsageError, match=words) as error:
        formats.from_bytes(content)
    assert "\n" not in str(error.value)


def long(*numbers: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype)


SPOILT = [
    ("bitmask", "fc.bitmask", torch.zeros(6, 5, dtype=torch.uint8), "marks 0 values, but 4"),
    ("bitmask", "fc.bitmask", torch.full((6, 5), 255, dtype=torch.uint8), "marks 240 values, but 4"),
    ("bitmask", "fc.bitmask", torch.zeros(6, 4, dtype=torch.uint8), "does not fit"),
    ("bitmask", "fc.bitmask", torch.zeros(6, 5, dtype=torch.int64), "does not fit"),
    ("bitmask", "fc.row_offsets", long(0, 2, 2, 3, 3, 9), "row offsets"),
    ("bitmask", "fc.row_offsets", long(0, 2), "row offsets"),
    ("bitmask", "fc.compressed", torch.zeros(3, dtype=torch.int8), "marks 4 values, but 3"),
    ("bitmask", "fc.compressed", torch.zeros(4), "not flat torch.int8"),
    ("bitmask", "fc.compressed", torch.zeros(2, 2, dtype=torch.int8), "not flat torch.int8"),
    ("csr", "fc.indptr", long(0, 2, 2, 3, 3, 3, 9, dtype=torch.int32), "does not rise from 0 to the 4"),
    ("csr", "fc.indptr", long(0, 2, 1, 3, 3, 3, 4, dtype=torch.int32), "does not rise"),
    ("csr", "fc.indptr", long(1, 2, 2, 3, 3, 3, 4, dtype=torch.int32), "does not rise"),
    ("csr", "fc.indptr", long(0, -(2**62), 2, 3, 3, 3, 4), "does not rise"),
    ("csr", "fc.indptr", long(0, 2, 4, dtype=torch.int32), "does not fit 6 rows"),
    ("csr", "fc.indptr", torch.zeros(7), "does not fit 6 rows"),
    ("csr", "fc.indices", long(1, 40, 20, 0, dtype=torch.uint8), "outside the 40 columns"),
    ("csr", "fc.indices", long(1, -1, 20, 0, dtype=torch.int32), "outside the 40 columns"),
    ("csr", "fc.indices", long(39, 1, 20, 0, dtype=torch.uint8), "do not increase"),
    ("csr", "fc.indices", long(1, 1, 20, 0, dtype=torch.uint8), "do not increase"),
    ("csr", "fc.indices", long(1, 39, 20, dtype=torch.uint8), "but 4 values are stored"),
    ("csr", "fc.indices", torch.zeros(4), "but 4 values are stored"),
    ("delta", "fc.steps8", torch.full((400,), 255, dtype=torch.uint8), "lead to 400 values, but 4"),
    ("delta", "fc.steps8", torch.zeros(400, dtype=torch.uint8), "end without a value"),
    ("delta", "fc.steps8", long(0, dtype=torch.uint8).repeat(9).index_fill(0, long(0, 3, 5, 8), 1), "lead to weight"),
    ("delta", "near.steps4", torch.full((400,), 255, dtype=torch.uint8), "lead to 800 values, but 100"),
    ("delta", "near.steps4", torch.zeros(400, dtype=torch.uint8), "end without a value"),
    ("delta", "near.steps4", torch.full((50,), 15 * 17, dtype=torch.uint8), "lead to weight 1500 of 600"),
    ("delta", "near.steps4", torch.zeros(4, 1, dtype=torch.uint8), "steps4 are"),
    ("delta", "near.steps4", torch.zeros(4), "steps4 are"),
    ("delta", "near.steps8", torch.zeros(4, dtype=torch.uint8), "one of steps4, steps8, steps16 is wanted, not 2"),
    ("delta", "wide.steps16", long(60000, 1, dtype=torch.uint16), "lead to weight 60001 of 8000"),
    *[("bitmask", "fc.weight_scale", scale, "scale") for scale in (
        torch.full((6, 1), float("nan")), torch.full((6, 1), float("inf")), torch.zeros(6, 1), -torch.ones(6, 1),
        torch.ones(5, 1), torch.ones(6), torch.ones(6, 1, dtype=torch.float64),
    )],
]  # fmt: skip


@pytest.mark.parametrize(("format", "part", "tensor", "words"), SPOILT)
def test_parts_that_lie_are_refused(format, part, tensor, words):
    tensors, about = parts_of(format)
    refused({**tensors, part: tensor}, about, words)


@pytest.mark.parametrize("format", ["bitmask", "csr", "delta", "dense"])
def test_a_missing_part_is_named(format):
    tensors, about = parts_of(format)
    for name in [n for n in tensors if n.startswith("fc.") and n != "fc.bias" and ".steps" not in n]:
        refused({n: t for n, t in tensors.items() if n != name}, about, f"lacks its part '{name}'")


@pytest.mark.parametrize(
    "shape",
    [[6], [], "640", None, [6, -40], [6, 41], [5, 40], [6, 2**62], [2**31, 2**31], [2**63, 1], [6, 40.0], [True, 240],
     [6, 40, 2**60, 2**60], [0, 0], [0, 2**62]],
)  # fmt: skip
@pytest.mark.parametrize("format", ["bitmask", "csr", "delta", "dense"])
def test_another_shape_is_refused_before_memory_is_taken(format, shape):
    tensors, about = parts_of(format)
    about["tensors"]["fc.weight"]["shape"] = shape
    tracemalloc.start()
    if format in ("csr", "delta") and shape == [6, 41]:  # one more column of zeros: nothing in the file contradicts it
        content = safetensors.torch.save(tensors, {"prunebench": json.dumps(about)})
        assert formats.from_bytes(content)["fc.weight"].shape == (6, 41)
    else:
        refused(tensors, about, "not a readable safetensors checkpoint")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_more_weights_than_memory_are_refused(monkeypatch):
    tensors, about = parts_of("delta", None)
    monkeypatch.setattr("prunebench.machine.memory_bytes", lambda: 10_000)
    refused(tensors, about, r"declares 3\.54e\+04 bytes of weights, and this machine has 1e\+04")


@pytest.mark.parametrize(
    "about",
    ["", "[]", "3", "{", "null", '"x"', '{"schema": 2}', '{"schema": 3}', '{"schema": "2"}', '{"schema": [2]}',
     '{"schema": 2, "tensors": []}', '{"schema": 2, "tensors": {"fc.weight": 1}}',
     '{"schema": 2, "tensors": {"none.weight": {"encoding": "csr", "shape": [2, 2], "dtype": "F32", "values": "F32"}}}',
     '{"schema": 1, "bitmask": 3}', '{"schema": 1, "bitmask": [3]}', '{"schema": 1, "bitmask": ["none"]}',
     '{"schema": 1, "bitmask": [["fc.weight"]]}', "[" * 100_000],
)  # fmt: skip
def test_metadata_of_any_kind_is_refused(about):
    refused(parts_of("csr")[0], about, "not a readable safetensors checkpoint")


@pytest.mark.parametrize(
    "changes",
    [{"encoding": "zip"}, {"encoding": 3}, {"encoding": ["csr"]}, {"dtype": "F4"}, {"dtype": "I64"}, {"dtype": None},
     {"values": "U8"}, {"values": "F32"}, {"values": "F16"}, {"values": {}}],
)  # fmt: skip
def test_unknown_words_are_refused(changes):
    tensors, about = parts_of("csr")
    about["tensors"]["fc.weight"] |= changes
    refused(tensors, about, "not a readable safetensors checkpoint")


def test_two_tensors_of_one_part_are_refused():
    tensors, about = parts_of("csr")
    about["tensors"]["fc"] = about["tensors"]["fc.weight"]  # both have the stem `fc`
    refused(tensors, about, "shares a part")
    tensors, about = parts_of("csr")
    refused({**tensors, "fc.weight": torch.zeros(2)}, about, "stored twice")


def test_tensors_that_would_share_a_name_are_not_written():
    with pytest.raises(UsageError, match="share a name"):
        version2.to_bytes({"fc.weight": MATRIX, "fc.data": torch.ones(2)}, "csr")
    with pytest.raises(UsageError, match="no tensor but dict"):
        version2.to_bytes({"extra": {}})


def header(**entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


GOOD = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        header(a={**GOOD, "data_offsets": [0, 8]}) + bytes(8),
        header(a={**GOOD, "data_offsets": [4, 8]}) + bytes(8),
        header(a={**GOOD, "data_offsets": [-4, 0]}) + bytes(4),
        header(a={**GOOD, "data_offsets": [0, 4], "shape": [-1, -1]}) + bytes(4),
        header(a={**GOOD, "shape": [2**40, 2**40]}) + bytes(4),
        header(a={**GOOD, "shape": [1.0]}) + bytes(4),
        header(a={**GOOD, "dtype": "F4"}) + bytes(4),
        header(a={**GOOD, "dtype": []}) + bytes(4),
        header(a=GOOD) + bytes(3),
        header(a=GOOD) + bytes(5),
        header(a=GOOD, b=GOOD) + bytes(4),
        header(a=GOOD, b={**GOOD, "data_offsets": [5, 9]}) + bytes(9),
        header(a=[]) + bytes(4),
        header(__metadata__=[]),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (1).to_bytes(8, "little") + b"\xff",
    ],
)
def test_a_container_that_lies_is_refused_by_us_and_by_the_library(content):
    with pytest.raises(UsageError):
        formats.from_bytes(content)
    with pytest.raises(Exception):  # noqa: B017
        safetensors.torch.load(content)


CONTENT = {format: version2.to_bytes(STATE, format, "int8") for format in formats.FORMATS}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(formats.FORMATS), st.data())
def test_flipped_bytes_are_read_or_refused_but_nothing_else(format, data):
    damaged = bytearray(CONTENT[format])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UsageError):
        state = formats.from_bytes(bytes(damaged))
        assert all(isinstance(value, torch.Tensor) for value in state.values())


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(formats.FORMATS), st.data())
def test_cut_files_are_refused(tmp_path_factory, format, data):
    content = CONTENT[format]
    path = tmp_path_factory.mktemp("cut") / "m.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UsageError, match=r"m\.safetensors is not a readable safetensors checkpoint"):
        pb.load(path)


def test_a_damaged_file_leaves_the_model_alone(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(40, 6), torch.nn.Linear(40, 6))
    state = {"0.weight": MATRIX, "0.bias": torch.ones(6), "1.weight": MATRIX, "1.bias": torch.ones(6)}
    content = version2.to_bytes(state, "csr")
    tensors, metadata = container.views(bytearray(content))
    tensors["1.indices"][0] = 40
    (tmp_path / "m").write_bytes(safetensors.torch.save({n: t.clone() for n, t in tensors.items()}, metadata))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"tensor '1\.weight': an index lies outside"):
        pb.load(tmp_path / "m", model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
