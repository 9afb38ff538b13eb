"""Counts against sums done by hand: stride, padding, dilation, groups, reuse, transposition."""

import pytest
import torch
from torch import nn

from prunebench import models
from prunebench.costs import count, tensor_bytes


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(1, 1, 1), (1, 5, 5), 25),
        (nn.Conv2d(3, 8, 3), (3, 10, 10), 8 * 8 * 8 * 27),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 10 * 10 * 8 * 27),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 10, 10), 5 * 5 * 8 * 27),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 10, 10), 8 * 8 * 8 * 2 * 9),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 10, 10), 10 * 10 * 6 * 9),
        (nn.Conv2d(3, 8, 3, dilation=2), (3, 10, 10), 6 * 6 * 8 * 27),
        (nn.Conv2d(2, 4, (3, 5), stride=(1, 2), padding=(1, 0)), (2, 10, 11), 10 * 4 * 4 * 2 * 15),
        (nn.Conv1d(2, 3, 4), (2, 9), 6 * 3 * 2 * 4),
        (nn.ConvTranspose2d(2, 3, 4, stride=2), (2, 5, 5), 25 * 2 * 3 * 16),
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5), (3, 7), 3 * 35),
    ],
)
def test_multiply_adds(layer, shape, macs):
    for batch in (1, 3):
        costs = count(layer, torch.randn(batch, *shape))
        assert costs.macs_dense == macs
        assert costs.macs == macs


def test_zeros_are_taken_off_where_they_are():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    model[0].weight.data.fill_(1)
    model[2].weight.data.fill_(1)
    model[0].weight.data[0] = 0  # 9 of 18 weights, each used 16 times
    model[2].weight.data[0, :10] = 0  # 10 of 96 weights, each used once
    costs = count(model, torch.randn(1, 1, 6, 6))
    assert costs.macs_dense == 18 * 16 + 96
    assert costs.macs == 9 * 16 + 86
    assert (costs.parameters, costs.prunable, costs.nonzeros) == (18 + 2 + 96 + 3, 18 + 96, 9 + 86)


def test_a_layer_used_twice_costs_twice_but_weighs_once():
    layer = nn.Linear(4, 4)
    costs = count(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(1, 4))
    assert (costs.macs, costs.prunable) == (32, 16)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "prunable", "macs"),
    [
        ("lenet300", (1, 28, 28), 266610, 266200, 266200),
        # 20*25*24² + 50*20*25*8² + 800*500 + 500*10
        ("lenet5", (1, 28, 28), 431080, 430500, 288000 + 1600000 + 400000 + 5000),
        ("resnet20", (3, 32, 32), 272474, 270896, 40813184),
    ],
)
def test_published_sizes(name, shape, parameters, prunable, macs):
    costs = count(models.build(name, shape, 10), torch.zeros(2, *shape))
    assert (costs.parameters, costs.prunable, costs.macs_dense) == (parameters, prunable, macs)


def test_counting_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count(model, torch.randn(2, 1, 6, 6))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_bytes_count_shared_memory_once():
    base = torch.zeros(10)
    assert tensor_bytes([base, base[:3], base.view(2, 5)]) == 40
    assert tensor_bytes([base, torch.zeros(3, dtype=torch.int64)]) == 64
    assert tensor_bytes([]) == 0
