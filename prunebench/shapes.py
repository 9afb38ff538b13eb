"""Shapes of conv and linear layers as values, and the layers of known networks, found without importing torch.

Networks: He et al. 2016 (ResNet), LeCun et al. 1998 in Caffe's widths (LeNet), Howard et al. 2017 (MobileNetV1);
`tests/test_shapes.py` compares the tables with the models themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from prunebench.errors import unknown


@dataclass(frozen=True)
class LayerShape:
    """One conv layer on square images, or one linear layer; sizes in pixels of the input, 1 for a linear layer."""

    kind: str  # conv or linear
    inputs: int  # channels or features
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    size: int = 1

    @property
    def id(self) -> str:
        """Readable and unique: `conv_64_128_3x3_stride2_at_56`, `depthwise_512_3x3_at_14`, `linear_800_500`."""
        if self.kind == "linear":
            return f"linear_{self.inputs}_{self.outputs}"
        name = f"depthwise_{self.inputs}" if self.groups > 1 else f"conv_{self.inputs}_{self.outputs}"
        stride = f"_stride{self.stride}" if self.stride > 1 else ""
        return f"{name}_{self.kernel}x{self.kernel}{stride}_at_{self.size}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input sample."""
        return (self.inputs,) if self.kind == "linear" else (self.inputs, self.size, self.size)

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}


def conv(inputs: int, outputs: int, kernel: int, size: int, stride: int = 1, groups: int = 1) -> LayerShape:
    """A convolution whose padding keeps the size at stride 1."""
    return LayerShape("conv", inputs, outputs, kernel, stride, kernel // 2, groups, size)


def linear(inputs: int, outputs: int) -> LayerShape:
    """A fully connected layer."""
    return LayerShape("linear", inputs, outputs)


def _lenet300() -> list[LayerShape]:
    return [linear(784, 300), linear(300, 100), linear(100, 10)]


def _lenet5() -> list[LayerShape]:
    first = LayerShape("conv", 1, 20, 5, size=28)
    return [first, LayerShape("conv", 20, 50, 5, size=12), linear(800, 500), linear(500, 10)]


def _basic_stages(widths: Iterable[int], size: int) -> list[LayerShape]:
    """Stages of basic blocks: two 3×3 each, all stages but the first halve the size, with a 1×1 shortcut."""
    found: list[LayerShape] = []
    before = 0
    for width in widths:
        if before:
            found += [conv(before, width, 3, size, 2), conv(before, width, 1, size, 2)]
            size //= 2
        found.append(conv(width, width, 3, size))
        before = width
    return found


def _resnet20() -> list[LayerShape]:
    return [conv(3, 16, 3, 32), *_basic_stages((16, 32, 64), 32), linear(64, 10)]


def _resnet18_cifar() -> list[LayerShape]:
    return [conv(3, 64, 3, 32), *_basic_stages((64, 128, 256, 512), 32), linear(512, 10)]


def _resnet50() -> list[LayerShape]:
    found = [conv(3, 64, 7, 224, 2)]
    before, size = 64, 56
    for width in (64, 128, 256, 512):
        stride = 1 if width == 64 else 2
        found += [conv(before, width, 1, size), conv(width, width, 3, size, stride)]
        found.append(conv(before, 4 * width, 1, size, stride))  # the shortcut
        size //= stride
        found += [conv(width, 4 * width, 1, size), conv(4 * width, width, 1, size), conv(width, width, 3, size)]
        before = 4 * width
    return [*found, linear(2048, 1000)]


def _mobilenet_v1() -> list[LayerShape]:
    found = [conv(3, 32, 3, 224, 2)]
    size, inputs = 112, 32
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in blocks:
        found.append(conv(inputs, inputs, 3, size, stride, groups=inputs))
        size //= stride
        found.append(conv(inputs, outputs, 1, size))
        inputs = outputs
    return [*found, linear(1024, 1000)]


_NETWORKS: dict[str, Callable[[], list[LayerShape]]] = {
    "lenet300": _lenet300,
    "lenet5": _lenet5,
    "resnet20": _resnet20,
    "resnet18_cifar": _resnet18_cifar,
    "resnet50": _resnet50,
    "mobilenet_v1": _mobilenet_v1,
}


def known_networks() -> list[str]:
    """Names of the networks whose layers are listed here."""
    return list(_NETWORKS)


def layers_of(network: str) -> list[LayerShape]:
    """The distinct shapes of a network's conv and linear layers, in its order; UsageError lists the known networks."""
    if network not in _NETWORKS:
        raise unknown("model with a list of layers", network, _NETWORKS)
    return list(dict.fromkeys(_NETWORKS[network]()))


def distinct(networks: Iterable[str]) -> dict[LayerShape, tuple[str, ...]]:
    """{shape: the networks that have it}, in the order in which they first appear."""
    found: dict[LayerShape, tuple[str, ...]] = {}
    for network in dict.fromkeys(networks):
        for shape in layers_of(network):
            found[shape] = (*found.get(shape, ()), network)
    return found
