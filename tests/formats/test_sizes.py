"""The entropy floor by hand."""

import math

import pytest
import torch

from prunebench.formats.sizes import entropy, floor_bytes


@pytest.mark.parametrize(("p", "bits"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.1, 0.4689955936), (0.9, 0.4689955936)])
def test_entropy(p, bits):
    assert entropy(p) == pytest.approx(bits)


def test_floor():
    weight = torch.zeros(10, 100)
    weight[:, :10] = 1.5
    state = {"w": weight, "b": torch.ones(10), "n": torch.tensor(3)}
    mask, rest = 1000 * entropy(0.1), 8 * (4 * 10 + 8)
    assert floor_bytes(state) == math.ceil((mask + 100 * 32 + rest) / 8)
    assert floor_bytes(state, "fp16") == math.ceil((mask + 100 * 16 + rest) / 8)
    assert floor_bytes(state, "int8") == math.ceil((mask + 100 * 8 + 10 * 32 + rest) / 8)
    assert floor_bytes({"w": torch.zeros(4, 4)}) == 0
    assert floor_bytes({"w": torch.zeros(0, 4), "v": torch.ones(3)}) == 12
