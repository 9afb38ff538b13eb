"""Devices: names, what is refused without a GPU, and settings that are put back."""

import pytest
import torch

from prunebench.devices import autocast, check_device, check_precision, device_of, own_random, repeatable
from prunebench.errors import UsageError
from prunebench.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "there", "device"),
    [
        (None, True, "cuda"),
        (None, False, "cpu"),
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, name, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(name) == device


def test_what_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, words in (("cuda", "no GPU"), ("tpu", "'tpu'.*auto, cpu, cuda")):
        with pytest.raises(UsageError, match=words) as error:
            device_of(name)
        assert "\n" not in str(error.value)
    assert check_device(None) == "auto"


def test_float16_is_for_gpus():
    check_precision(Recipe(), CPU)
    check_precision(Recipe(precision="bf16"), CPU)
    check_precision(Recipe(precision="fp16"), torch.device("cuda"))
    with pytest.raises(UsageError, match=r"'quick'.*'fp16' needs a GPU"):
        check_precision(Recipe(name="quick", precision="fp16"), CPU)


def test_autocast_takes_the_precision_asked_for():
    x, layer = torch.randn(2, 3), torch.nn.Linear(3, 2)
    with autocast("float32", CPU):
        assert layer(x).dtype == torch.float32
    with autocast("bf16", CPU):
        assert layer(x).dtype == torch.bfloat16


def test_random_numbers_are_its_own():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with own_random(7, CPU):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with own_random(7, CPU):
        assert torch.equal(torch.rand(2), first)


def test_repeatable_algorithms_are_put_back():
    before = torch.are_deterministic_algorithms_enabled()
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before
    with repeatable(False):
        assert torch.are_deterministic_algorithms_enabled() == before
