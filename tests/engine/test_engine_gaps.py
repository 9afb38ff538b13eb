"""Cases that a first engine got wrong: tensors torch takes, results torch can use, a sum that a view sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stressing import Net, build, images, reference, right
from torch import nn

import prunebench as pb
from prunebench.engine import available

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


@pytest.mark.parametrize("n", [1, 16])
def test_an_input_that_begins_at_an_odd_byte(n):
    """torch computes with it, and numpy names its format '=f' rather than 'f'."""
    model, x = Net(0), images(n)
    odd = torch.frombuffer(bytearray(x.numel() * 4 + 1), dtype=torch.float32, offset=1).view(x.shape)
    odd.copy_(x)
    assert odd.data_ptr() % 4 == 1
    assert right(build(model)(odd), reference(model, x))


def test_the_result_can_be_changed_and_differentiated_through():
    """A result that torch calls an inference tensor allows neither."""
    y = build(Net(0))(images(2))
    scale = torch.ones(1, requires_grad=True)
    (scale * y).sum().backward()
    assert scale.grad is not None
    y += 1


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 8, 3, padding=1, bias=False) for _ in range(2))
        for i, conv in enumerate((self.a, self.b)):
            keep = torch.rand(conv.weight.shape, generator=torch.Generator().manual_seed(i)) < 0.2
            conv.weight.requires_grad_(False).mul_(keep)
        self.eval()

    def forward(self, x):
        y = self.a(x)
        part = y[:, :2]
        y += self.b(x)
        return torch.cat([y, part], 1)


@pytest.mark.parametrize("example", [torch.zeros, torch.randn])
def test_a_view_sees_the_sum_in_place(example):
    """On zeros both readings agree, so that a check on the example can't tell."""
    model, x = Viewed(), images(2)
    engine = pb.compile(model, example(2, 3, 16, 16), backend="csr", threads=1)
    assert right(engine(x), reference(model, x))


def test_conjugate_data_is_a_type_error():
    with pytest.raises(TypeError, match="data"):
        pb.kernels.csr_matmul(
            np.array([0, 1, 2]), np.array([0, 1]), torch.ones(2, dtype=torch.complex64).conj(), (2, 2),
            np.ones((2, 3), np.float32),
        )  # fmt: skip
