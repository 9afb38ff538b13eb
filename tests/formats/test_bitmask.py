"""The bitmask encoding, bit by bit, and parts that contradict each other."""

import pytest
import torch

from prunebench.formats import bitmask

TENSOR = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0], [0.0] * 9, [1.0, 0, 0, 0, 0, 0, 0, 7.0, 0]])


def test_parts():
    parts = bitmask.encode(TENSOR)
    assert set(parts) == set(bitmask.PARTS)
    assert parts["shape"].tolist() == [3, 9]
    assert parts["compressed"].tolist() == [2, 5, 1, 7]
    assert parts["bitmask"].tolist() == [[2, 1], [0, 0], [1 + 128, 0]]  # least significant bit first
    assert parts["row_offsets"].tolist() == [0, 2, 2]
    assert torch.equal(bitmask.decode(parts), TENSOR)


@pytest.mark.parametrize(
    ("tensor", "pays"),
    [
        (TENSOR, True),
        (torch.ones(4, 4), False),
        (torch.eye(2), True),
        (torch.zeros(9), False),
        (torch.zeros(3, 3, dtype=torch.int64), False),
        (torch.tensor(0.0), False),
    ],
)
def test_when_it_pays(tensor, pays):
    assert bitmask.pays(tensor) == pays


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": torch.tensor([3])},
        {"shape": torch.tensor([3, -9])},
        {"shape": torch.tensor([3, 17])},
        {"shape": torch.tensor([4, 9])},
        {"compressed": torch.ones(3)},
        {"compressed": torch.ones(2, 2)},
        {"bitmask": torch.zeros(3, 2, dtype=torch.int64)},
        {"bitmask": torch.full((3, 2), 255, dtype=torch.uint8)},
    ],
)
def test_parts_that_disagree_are_refused(changes):
    with pytest.raises(ValueError):
        bitmask.decode({**bitmask.encode(TENSOR), **changes})
