"""Which batch norm follows a layer: found in the traced graph, None where there is none."""

import pytest
import torch
from torch import nn

from prunebench import models
from prunebench.criteria import gathering
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


def scales(model):
    layers = gathering.gather(model, prunable_modules(model), ("norm_scale",), None, None, "test")
    return {layer.name: layer.norm_scale for layer in layers}


def test_every_convolution_of_a_resnet_has_its_own():
    model = models.build("resnet20", (3, 32, 32), 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.normal_()
    found = scales(model)
    assert [name for name, scale in found.items() if scale is None] == ["fc.weight"]
    norms = {id(m): m for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    expected = sorted(m.weight.abs().sum().item() for m in norms.values())
    assert sorted(s.sum().item() for s in found.values() if s is not None) == pytest.approx(expected)
    assert all(len(s) == len(model.get_parameter(n)) for n, s in found.items() if s is not None)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))
        self.first, self.second, self.plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.second.weight.data = torch.tensor([-1.0, 2.0, -3.0])

    def forward(self, x):
        x = self.second(self.a(x)) + self.first(torch.relu(self.b(x)))  # b's output goes through a ReLU first
        return self.plain(self.c(x)) + self.d(x)


def test_only_what_reads_the_output_directly_and_has_a_scale_counts():
    found = scales(Branches())
    assert found["a.weight"].tolist() == [1.0, 2.0, 3.0]
    assert [name for name, scale in found.items() if scale is None] == ["b.weight", "c.weight", "d.weight"]


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.conv(x)) if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("model", "words"),
    [(Untraceable(), "can't trace Untraceable"), (nn.Sequential(nn.Linear(2, 2)), "needs batch norms.*Sequential")],
)
def test_what_can_not_be_is_one_line(model, words):
    with pytest.raises(UsageError, match=words) as error:
        scales(model)
    assert "\n" not in str(error.value)
