"""LeNet-5 in Caffe's widths 20-50-500, as the pruning literature uses it (Han et al. 2015); 431,080 parameters."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from prunebench.errors import UsageError
from prunebench.registry import model


@model("lenet5")
def lenet5(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two 5×5 convolutions, each with ReLU and 2×2 max-pooling, then 500 hidden units."""
    channels, height, width = input_shape
    rows, columns = ((height - 4) // 2 - 4) // 2, ((width - 4) // 2 - 4) // 2
    if min(rows, columns) < 1:
        raise UsageError(f"model 'lenet5' needs images of at least 16x16, not {height}x{width}")
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 20, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * rows * columns, 500),
            relu3=nn.ReLU(),
            fc2=nn.Linear(500, classes),
        )
    )
