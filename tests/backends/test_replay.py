"""Models captured as core ATen calls and replayed: right on every kind of operator, and what has no rule is named."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from replaying import TorchArrays
from torch import nn

from prunebench import models
from prunebench.backends.core_aten import captured, window_pads
from prunebench.backends.replay import Untranslated, replay


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def replayed(model, x):
    graph = captured(model, x)
    weights = {name: torch.from_numpy(np.asarray(weight)) for name, weight in graph.weights.items()}
    with torch.no_grad():
        return replay(graph, weights, x, TorchArrays()), graph


def norm(channels):
    layer = nn.BatchNorm2d(channels)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    layer.weight.data.normal_()
    layer.bias.data.normal_()
    return layer


IMAGE = (3, 4, 8, 9)
KINDS = {
    "padded": lambda: nn.Conv2d(4, 5, 3, padding=1),
    "uneven": lambda: nn.Conv2d(4, 5, (3, 2), stride=(1, 2), padding=(2, 0)),
    "dilated": lambda: nn.Conv2d(4, 5, 3, dilation=2, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "same": lambda: nn.Conv2d(4, 5, 4, padding="same"),
    "folded": lambda: nn.Sequential(nn.Conv2d(4, 5, 3), norm(5), nn.ReLU(inplace=True), nn.Conv2d(5, 2, 1), norm(2)),
    "norm first": lambda: nn.Sequential(norm(4), nn.Conv2d(4, 5, 3)),
    "max-pool": lambda: nn.MaxPool2d(3, 2, 1),
    "max-pool up": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "avg-pool": lambda: nn.AvgPool2d(2),
    "avg-pool padded": lambda: nn.AvgPool2d(3, 2, 1),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((4, 3)),
    "mean": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    "flattened": lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 6 * 7, 3)),
    "activations": lambda: nn.Sequential(
        nn.Conv2d(4, 5, 1), nn.ReLU6(), nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh()
    ),
    "gate": lambda: Function(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid() + 1 - x / 2),
    "cat": lambda: Function(lambda x: torch.cat([F.relu(x), F.max_pool2d(x, 1)], 1)),
    "broadcast": lambda: Function(lambda x: F.max_pool2d(x, 2) * x.mean((0, 2, 3)).reshape(4, 1, 1)),
    "softmax": lambda: Function(lambda x: torch.softmax(x.flatten(2), 1).transpose(1, 2)[:, 1:5, ::2]),
    "tokens": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(72, 6), nn.LayerNorm(6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", KINDS)
def test_operators(kind):
    torch.manual_seed(0)
    model, x = KINDS[kind]().eval(), torch.randn(IMAGE)
    with torch.no_grad():
        expected = copy.deepcopy(model)(x.clone())
    found, _ = replayed(model, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5", (1, 28, 28)), ("resnet20", (3, 16, 16)), ("vit_tiny_cifar:depth=1", (3, 32, 32))]
)
def test_networks(name, shape):
    model, x = models.build(name, shape, 10), torch.randn(2, *shape)
    model.train()(x)
    model.eval()
    found, graph = replayed(model, x)
    torch.testing.assert_close(found, model(x).detach(), rtol=1e-4, atol=1e-5)
    if name == "resnet20":  # every batch norm stands behind a convolution
        assert {call.op for call in graph.calls} == {"conv2d", "relu", "add", "mean", "view", "linear"}
        assert sum(weight.size for weight in graph.weights.values()) == sum(
            p.numel() for n, p in model.named_parameters() if "bn" not in n and "shortcut.1" not in n
        ) + sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_folding_keeps_zeros_and_leaves_what_another_reader_needs():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 1), norm(4)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y + self.conv(F.relu(x))  # read twice, and the layer used twice

    model, x = Shared().eval(), torch.randn(IMAGE)
    found, graph = replayed(model, x)
    torch.testing.assert_close(found, model(x).detach())
    assert "scale_shift" in {call.op for call in graph.calls}
    alone = nn.Sequential(nn.Conv2d(4, 4, 3), norm(4)).eval()
    alone[0].weight.data[:, :, 1] = 0
    (weight,) = (w for w in captured(alone, x).weights.values() if w.ndim == 4)
    assert not weight[1].any()
    assert weight[0].all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.ConvTranspose2d(4, 2, 3), "aten.convolution"),
        (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), "aten."),
        (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), "average pooling"),
        (lambda: nn.MaxPool2d(2, dilation=2), "dilation"),
        (lambda: nn.AdaptiveAvgPool2d((3, 3)), "adaptive pooling of 8 x 9"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "output"),
        (lambda: Function(lambda x: F.conv2d(x, x[:1].mean((2, 3), keepdim=True))), "computes the weight"),
    ],
)
def test_what_has_no_translation_is_named(make, words):
    with pytest.raises(ValueError) as error:
        replayed(make().eval(), torch.randn(IMAGE))
    assert words in str(error.value)
    assert "aten." not in words or isinstance(error.value, Untranslated)


@pytest.mark.parametrize("ceil", [False, True])
def test_windows_give_as_many_outputs_as_torchs(ceil):
    for size in range(4, 12):
        for taps, stride, padding in [(2, 2, 0), (3, 2, 1), (3, 3, 0), (2, 3, 1), (3, 1, 1)]:
            before, after = window_pads(size, taps, stride, padding, 1, ceil)
            expected = F.max_pool1d(torch.zeros(1, 1, size), taps, stride, padding, 1, ceil).shape[-1]
            assert (size + before + after - taps) // stride + 1 == expected
