"""The float64 reference: both ends of a batch, its bound, and what fails it."""

import pytest
import torch
from torch import nn

from prunebench.reference import TOLERANCE, CheckFailed, Reference


@pytest.mark.parametrize(("size", "rows"), [(1, [0]), (3, [0, 1, 2]), (40, [0, 1, 2, 3, 36, 37, 38, 39])])
def test_both_ends_are_checked(size, rows):
    model = nn.Linear(4, 3).eval()
    reference = Reference(model, torch.randn(size, 4))
    assert reference.rows == rows
    assert reference.output.dtype == torch.float64
    assert reference.check(model, "mine") < 1e-6


@pytest.mark.parametrize("wrong", [lambda y: y * (1 + 3 * TOLERANCE), lambda y: y * float("nan"), torch.zeros_like])
def test_what_is_wrong_is_named(wrong):
    model = nn.Linear(4, 3).eval()
    with pytest.raises(CheckFailed, match="mine: output differs from the float64 reference"):
        Reference(model, torch.randn(5, 4)).check(lambda x: wrong(model(x)), "mine")


def test_the_model_keeps_its_precision():
    model = nn.Linear(4, 3).eval()
    Reference(model, torch.randn(5, 4))
    assert model.weight.dtype == torch.float32
