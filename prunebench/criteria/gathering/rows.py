"""A weight as rows: one per output, each the inputs of that output in the order of `weight[o].flatten()`."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def rows(module: Any, values: Tensor) -> Tensor:
    """Values of the weight's shape as (outputs, inputs of one output).

    A transposed convolution's weight is (in, out/groups, *taps); its rows are (in/groups, *taps) of an output channel.
    """
    if not getattr(module, "transposed", False):
        return values.flatten(1)
    split = values.reshape(module.groups, -1, *values.shape[1:])
    return split.transpose(1, 2).reshape(module.out_channels, -1)


def unrows(module: Any, values: Tensor) -> Tensor:
    """The inverse of `rows`: (outputs, inputs of one output) in the weight's shape."""
    shape = module.weight.shape
    if not getattr(module, "transposed", False):
        return values.reshape(shape)
    split = values.reshape(module.groups, shape[1], shape[0] // module.groups, *shape[2:])
    return split.transpose(1, 2).reshape(shape)
