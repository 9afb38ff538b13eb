"""LeNet-300-100 (LeCun et al. 1998): two hidden linear layers of 300 and 100; 266,610 parameters on 28×28×1."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from prunebench.registry import model


@model("lenet300")
def lenet300(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Flattened image -> 300 -> 100 -> classes, ReLU between."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(math.prod(input_shape), 300),
            relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            fc3=nn.Linear(100, classes),
        )
    )
