"""Checkpoints: what goes in comes out, sparse ones are small, damaged ones are one line, and nothing is pickled."""

import contextlib
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunebench as pb
from prunebench import formats, models
from prunebench.errors import UsageError
from prunebench.formats import version1, version2

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    share = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    values = torch.randn(shape, generator=generator) * 50
    values[torch.rand(shape, generator=generator) < share] = 0
    return values.to(dtype)


STATES = st.dictionaries(st.from_regex(r"[a-z]{1,4}\.(weight|bias)", fullmatch=True), tensors(), max_size=4)


def equal(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


@settings(max_examples=150, deadline=None)
@given(STATES, st.sampled_from(formats.FORMATS))
def test_round_trip(state, format):
    assert equal(formats.from_bytes(version2.to_bytes(state, format)), state)


@settings(max_examples=75, deadline=None)
@given(STATES, st.sampled_from(version1.FORMATS))
def test_round_trip_of_the_store(state, format):
    assert equal(formats.from_bytes(formats.to_bytes(state, format)), state)


def test_odd_values_survive():
    odd = torch.zeros(3, 8)
    odd[0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-45])
    back = formats.from_bytes(formats.to_bytes({"w": odd}))["w"]
    torch.testing.assert_close(back, odd, rtol=0, atol=0, equal_nan=True)
    assert back[0, 3] == 1e-45


def test_strided_and_shared_tensors_survive():
    base = torch.randn(6, 8)
    base[base < 0.5] = 0
    state = {"a.weight": base.t(), "b.weight": base, "c.weight": base, "d.weight": base[::2, 1:5]}
    assert equal(formats.from_bytes(formats.to_bytes(state)), state)
    assert equal(formats.from_bytes(formats.to_bytes(state, "dense")), state)


def test_the_same_state_gives_as_many_bytes():
    state = models.build("lenet300", (1, 8, 8), 10).state_dict()
    assert len(formats.to_bytes(state)) == len(formats.to_bytes({k: v.clone() for k, v in state.items()}))


@pytest.mark.parametrize(("sparsity", "smaller"), [(0.5, 1.5), (0.9, 6.5), (0.99, 20)])
def test_sparse_is_small(sparsity, smaller):
    model = models.build("lenet5", (1, 28, 28), 10)
    dense = len(formats.to_bytes(model.state_dict(), "dense"))
    assert dense == pytest.approx(4 * 431080, rel=0.01)
    pb.prune(model, sparsity, scope="layerwise")
    packed = len(formats.to_bytes(model.state_dict()))
    assert packed * smaller < dense
    # A bit per weight, four bytes per kept one, eight per row; biases and the header besides.
    assert packed == pytest.approx(430500 / 8 + 4 * 430500 * (1 - sparsity) + 8 * 580 + 4 * 580, rel=0.05)


def test_what_is_not_sparse_is_not_packed():
    model = models.build("lenet300", (1, 28, 28), 10)
    assert len(formats.to_bytes(model.state_dict())) == pytest.approx(
        len(formats.to_bytes(model.state_dict(), "dense")), rel=0.001
    )


@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_model_on_disk(tmp_path, format):
    model, other = (models.build("resnet20", (3, 32, 32), 10, seed) for seed in (0, 1))
    pb.prune(model, 0.9)
    size = pb.save(model, tmp_path / "m.safetensors", format=format)
    assert size == (tmp_path / "m.safetensors").stat().st_size
    assert os.listdir(tmp_path) == ["m.safetensors"]
    state = pb.load(tmp_path / "m.safetensors", other)
    assert equal(state, dict(model.state_dict()))
    assert equal(dict(other.state_dict()), dict(model.state_dict()))


CONTENT = formats.to_bytes({"fc.weight": torch.eye(16), "fc.bias": torch.ones(16)})


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, len(CONTENT) // 2, len(CONTENT) - 1])
def test_a_truncated_file_is_one_line(tmp_path, length):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(CONTENT[:length])
    with pytest.raises(UsageError, match=r"cut\.safetensors is not a readable safetensors checkpoint") as error:
        pb.load(path)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_usage_error(content):
    with pytest.raises(UsageError):
        formats.from_bytes(content)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_read_or_refused_but_nothing_else(position, flip):
    damaged = bytearray(CONTENT)
    damaged[position] ^= flip
    with contextlib.suppress(UsageError):
        state = formats.from_bytes(bytes(damaged))
        assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "evil.safetensors"
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self):
            return open, (str(mark), "w")

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UsageError):
        pb.load(path)
    torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(UsageError):
        pb.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_of_torch_save_is_refused_with_the_remedy(tmp_path, archive):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(3, 2).state_dict(), path, _use_new_zipfile_serialization=archive)
    with pytest.raises(UsageError, match=r"model\.pt is no safetensors file .* `prunebench unpack IN OUT`"):
        pb.load(path)


def test_what_is_no_model_is_refused_and_nothing_written(tmp_path):
    path = tmp_path / "m.safetensors"
    for what, words in (
        (torch.relu, "a torch.nn.Module or a state dict, not builtin"),
        (nn.Linear(2, 2, device="meta"), "'weight' has no values yet"),
        (nn.LazyLinear(2), "'weight' has no values yet"),
    ):
        with pytest.raises(UsageError, match=words):
            pb.save(what, path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"can't read .*none\.safetensors") as error:
        pb.load(tmp_path / "none.safetensors")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="can't read"):
        pb.load(tmp_path)


def test_a_checkpoint_of_another_model_is_one_line_and_leaves_the_model_alone(tmp_path):
    pb.save(nn.Linear(3, 2), tmp_path / "a")
    other = nn.Linear(4, 2)
    before = other.weight.clone()
    with pytest.raises(UsageError, match="does not fit Linear") as error:
        pb.load(tmp_path / "a", other)
    assert "\n" not in str(error.value)
    assert torch.equal(other.weight, before)


def test_an_unknown_format_lists_the_known_and_writes_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"'zip'.*bitmask, csr, delta, dense"):
        pb.save(nn.Linear(2, 2), tmp_path / "a", format="zip")
    assert os.listdir(tmp_path) == []


def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prunebench.atomic.os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        pb.save(nn.Linear(2, 2), tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_does_not_fit_leaves_the_model_alone(tmp_path):
    pb.save(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), tmp_path / "m.safetensors")
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UsageError, match=r"does not fit Sequential: 1.weight is \(2, 4\), not \(5, 4\)"):
        pb.load(tmp_path / "m.safetensors", other)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
