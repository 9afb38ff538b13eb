"""Values in fewer bits: within half a step of what they were, refused where they can't be held."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.errors import UsageError
from prunebench.formats.values import narrow, widen


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return (values * (values.abs() > 1.2)).to(dtype)


def test_int8_is_within_half_a_step_of_its_channel():
    rows = weights(6, 50) * torch.tensor([1e-20, 1e-3, 1.0, 30.0, 1e6, 0.0])[:, None]
    stored, scales = narrow("w", rows, "int8")
    assert stored.dtype == torch.int8
    assert stored.abs().amax(1).tolist() == [127] * 5 + [0]
    assert ((widen(stored, scales, torch.float32) - rows).abs() <= scales / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("tiny", [1e-45, 1e-40])
def test_subnormal_rows_stay_finite(tiny):
    stored, scales = narrow("w", torch.full((2, 4), tiny), "int8")
    back = widen(stored, scales, torch.float32)
    assert back.isfinite().all()
    assert ((back - tiny).abs() <= tiny).all()


@pytest.mark.parametrize(("values", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_floating_values_are_rounded_once(values, dtype):
    rows = weights(5, 9)
    stored, scales = narrow("w", rows, values)
    assert scales is None
    assert torch.equal(stored, rows.to(dtype))


def test_values_are_never_wider_than_the_weight():
    half = weights(4, 4, dtype=torch.float16)
    for values in ("fp32", "fp16", "bf16", None):
        assert narrow("w", half, values)[0] is half


@pytest.mark.parametrize(
    ("rows", "values", "words"),
    [
        (torch.tensor([[1e6, 1.0]]), "fp16", r"'w' holds 1e\+06, beyond fp16's 6.55e\+04; use bf16"),
        (torch.tensor([[float("nan"), 1.0]]), "int8", "NaN or infinity"),
        (torch.tensor([[float("inf"), 1.0]]), "int8", "NaN or infinity"),
        (torch.tensor([[1e300, 1.0]], dtype=torch.float64), "int8", "beyond what a float32 scale takes"),
    ],
)
def test_what_can_not_be_held_is_refused(rows, values, words):
    with pytest.raises(UsageError, match=words):
        narrow("w", rows, values)


def test_a_refused_model_writes_nothing(tmp_path):
    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, 1e9)
    with pytest.raises(UsageError, match="'weight' holds"):
        pb.save(model, tmp_path / "m", values="fp16")
    with pytest.raises(UsageError, match=r"unknown values 'int4'.*bf16, fp16, fp32, int8"):
        pb.save(model, tmp_path / "m", values="int4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["dense", "bitmask", "csr", "delta"])
@pytest.mark.parametrize("values", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_format_gives_back_the_same_values(tmp_path, format, values, dtype):
    state = {"fc.weight": weights(7, 33, dtype=dtype), "conv.weight": weights(4, 3, 3, 3, dtype=dtype)}
    pb.save(state, tmp_path / "m", format=format, values=values)
    back = pb.load(tmp_path / "m")
    for name, tensor in state.items():
        stored, scales = narrow(name, tensor.flatten(1), values)
        wanted = widen(stored, scales, dtype).view(tensor.shape)
        assert back[name].dtype == dtype
        assert torch.equal(back[name], wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("values", [None, "int8"])
def test_a_model_of_another_layout_or_dtype_takes_the_values(tmp_path, layout, dtype, values):
    model = nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6))
    model[0].weight.data.mul_(model[0].weight.abs() > 0.08)
    pb.save(model, tmp_path / "m", format="delta", values=values)
    wanted = pb.load(tmp_path / "m")["0.weight"].to(dtype)
    other = nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)).to(dtype=dtype, memory_format=layout)
    version = other[0].weight._version
    state = pb.load(tmp_path / "m", other)
    assert torch.equal(other[0].weight, wanted)
    assert state["0.weight"].data_ptr() == other[0].weight.data_ptr()  # decoded in place, no second copy
    assert other[0].weight._version > version  # what watches for changed weights sees it


def test_a_module_that_loads_its_own_way_is_asked_to(tmp_path):
    class Doubling(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict = {name: 2 * tensor for name, tensor in state_dict.items()}
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = Doubling(4, 4)
    before = model.weight.detach().clone()
    pb.save(model, tmp_path / "m")
    pb.load(tmp_path / "m", model)
    assert torch.equal(model.weight, 2 * before)
