"""Files written by earlier versions are read for ever, and written the same way where the store relies on it."""

from pathlib import Path

import pytest
import torch
from golden_state import golden_state

import prunebench as pb
from prunebench import formats
from prunebench.formats import version2

GOLDEN = Path(__file__).parent / "golden"
FLOATING = [(format, values) for format in formats.FORMATS for values in (None, "fp16", "bf16", "int8")]


def name_of(format: str, values: str | None) -> str:
    return f"schema2-{format}-{values or 'as_they_are'}.safetensors"


def test_schema_1_is_read():
    state = formats.from_bytes((GOLDEN / "schema1.safetensors").read_bytes())
    assert equal(state, golden_state())
    assert equal(pb.load(GOLDEN / "schema1.safetensors"), golden_state())


def test_the_store_writes_schema_1_to_the_byte():
    assert formats.to_bytes(golden_state()) == (GOLDEN / "schema1.safetensors").read_bytes()


@pytest.mark.parametrize(("format", "values"), FLOATING)
def test_schema_2_is_read_and_written_to_the_byte(format, values):
    path = GOLDEN / name_of(format, values)
    assert version2.to_bytes(golden_state(), format, values) == path.read_bytes()
    state = pb.load(path)
    assert formats.read(path).schema == 2
    if values != "int8":
        assert equal(state, golden_state())  # quarters below 5 are exact in fp16 and bf16
    else:
        for name, tensor in golden_state().items():
            assert state[name].dtype == tensor.dtype
            assert (state[name].double() - tensor.double()).abs().max() <= 4.25 / 127 / 2 * 1.01


def equal(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )
