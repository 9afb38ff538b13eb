"""A layer's weight as rows, one per output: what one output is computed from, and what a filter is."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def to_rows(module: Any, values: Tensor) -> Tensor:
    """Values of the weight's shape as (outputs, inputs of one output · taps); a view where the layout allows.

    A transposed convolution's weight is (in, out/groups, …), any other (out, in/groups, …).
    """
    if not getattr(module, "transposed", False):
        return values.flatten(1)
    grouped = values.unflatten(0, (module.groups, -1))  # (groups, in/groups, out/groups, …)
    return grouped.transpose(1, 2).flatten(0, 1).flatten(1)


def from_rows(module: Any, rows: Tensor) -> Tensor:
    """Back from `to_rows` to the weight's shape."""
    shape = module.weight.shape
    if not getattr(module, "transposed", False):
        return rows.view(shape)
    inputs = shape[0] // module.groups
    grouped = rows.view(module.groups, shape[1], inputs, *shape[2:])
    return grouped.transpose(1, 2).reshape(shape)


def of_outputs(module: Any, values: Tensor) -> Tensor:
    """(outputs,) values given to every weight of each output: of the weight's shape."""
    return from_rows(module, values[:, None].expand(-1, module.weight.numel() // len(values)).contiguous())
