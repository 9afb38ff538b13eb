"""The bitmask encoding, bit by bit."""

import pytest
import torch

from prunebench.formats import bitmask

pytestmark = pytest.mark.usefixtures("decoder")

MATRIX = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0], [0.0] * 9, [1.0, 0, 0, 0, 0, 0, 0, 7.0, 0]])


def test_bits_are_packed_per_row_the_least_significant_first():
    parts = bitmask.encode(MATRIX)
    assert set(parts) == set(bitmask.PARTS)
    assert parts["shape"].tolist() == [3, 9]
    assert parts["compressed"].tolist() == [2, 5, 1, 7]
    assert parts["bitmask"].tolist() == [[2, 1], [0, 0], [1 + 128, 0]]
    assert parts["row_offsets"].tolist() == [0, 2, 2]
