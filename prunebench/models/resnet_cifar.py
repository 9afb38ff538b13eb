"""ResNets for small images: He et al. 2016, section 4.2 (ResNet-20/56), and torchvision's 18/50 with a 3×3 stem.

ResNet-20/56 use projection shortcuts (option B) where the shape changes: 272,474 parameters for ResNet-20 on
32×32×3 with 10 classes.
"""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from prunebench.registry import model


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut: (n, c, h, w) -> (n, out, h/stride, w/stride)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class ResNetCifar(nn.Module):
    """A 3×3 stem, three stages of `blocks` basic blocks at 16, 32 and 64 channels, global average, linear."""

    def __init__(self, channels: int, classes: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        stages, width = [], 16
        for out, stride in ((16, 1), (32, 2), (64, 2)):
            stages.append(
                nn.Sequential(
                    *(BasicBlock(width if i == 0 else out, out, stride if i == 0 else 1) for i in range(blocks))
                )
            )
            width = out
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.relu(self.bn(self.stem(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


@model("resnet20")
def resnet20(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-20 for small images: 6n + 2 layers with n = 3."""
    return ResNetCifar(input_shape[0], classes, 3)


@model("resnet56")
def resnet56(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-56 for small images: 6n + 2 layers with n = 9."""
    return ResNetCifar(input_shape[0], classes, 9)


def _small_stem(net: torchvision.models.ResNet, channels: int) -> nn.Module:
    # The usual change for 32×32: a 7×7 stride-2 stem with max-pooling would leave 8×8 after the first layer.
    net.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net


@model("resnet18_cifar")
def resnet18_cifar(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's ResNet-18 with a 3×3 stride-1 stem and no max-pooling."""
    return _small_stem(torchvision.models.resnet18(num_classes=classes), input_shape[0])


@model("resnet50_cifar")
def resnet50_cifar(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's ResNet-50 with a 3×3 stride-1 stem and no max-pooling."""
    return _small_stem(torchvision.models.resnet50(num_classes=classes), input_shape[0])
