"""Random: decided by torch's seed, and without preference."""

import pytest
import torch
from torch import nn

import prunebench as pb


def mask(seed, model):
    torch.manual_seed(seed)
    return pb.prune(model, 0.5, "random")["weight"]


def test_the_seed_decides():
    one, two, other = (mask(seed, nn.Linear(40, 40)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_it_is_blind_to_magnitude():
    model = nn.Linear(100, 100)
    model.weight.data = torch.linspace(1, 2, 10000).view(100, 100)
    kept = mask(0, model).flatten()
    # 2500 ± 25 expected of the larger half; magnitude would keep all 5000.
    assert int(kept[5000:].sum()) == pytest.approx(2500, abs=150)
