"""The engine's own graph: operations on images, free of torch, with their shapes and the ways they fuse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, int, int]  # channels, rows, columns; a vector has one row and one column


@dataclass(eq=False)
class Op:
    """One operation; `inputs` are the operations whose results it reads.

    kinds: input, conv, linear, affine, act, add, mul, gate, cat, slice, shuffle, window (pooling), mean, flatten.
    """

    kind: str
    inputs: list[Op]
    name: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)
    flat: bool = False  # the result is (N, F), not (N, C, H, W)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["attrs"][name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution or a pooling window."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    mode: str = "zeros"  # or reflect, replicate, circular
    ceil: bool = False

    @property
    def reach(self) -> int:
        """Inputs from the first tap to the last."""
        return self.dilation * (self.taps - 1) + 1

    def output(self, size: int) -> int:
        """Outputs for `size` inputs. ValueError: too small an input for the kernel or the padding."""
        pad = max(self.before, self.after)
        padded = size + self.before + self.after
        short = (self.ceil and padded - self.reach <= -self.stride) or (not self.ceil and padded < self.reach)
        if size < 1 or short:
            raise ValueError(f"a kernel that reaches over {self.reach} doesn't fit a padded input of {padded}")
        if (self.mode == "reflect" and pad >= size) or (self.mode == "circular" and pad > size):
            raise ValueError(f"{self.mode} padding of {pad} is too much for an input of {size}")
        if not self.ceil:
            return (padded - self.reach) // self.stride + 1
        count = math.ceil((padded - self.reach) / self.stride) + 1
        # as torch: a window must start inside the input or its left padding
        return count - 1 if (count - 1) * self.stride >= size + self.before else count


def shape_of(op: Op, inputs: list[Shape]) -> Shape:
    """Output shape for the inputs' shapes. ValueError: the operation doesn't take them."""
    c, h, w = inputs[0] if inputs else (0, 0, 0)
    if op.kind == "conv":
        if c != op.channels:
            raise ValueError(f"expected {op.channels} input channels, got {c}")
        return op.weights.rows, op.axes[0].output(h), op.axes[1].output(w)
    if op.kind == "linear":
        if c * h * w != op.channels:
            raise ValueError(f"expected {op.channels} input features, got {c * h * w}")
        return op.weights.rows, 1, 1
    if op.kind == "affine" and len(op.scale) != c:
        raise ValueError(f"expected {len(op.scale)} input channels, got {c}")
    if op.kind in ("add", "mul") and inputs[0] != inputs[1]:
        raise ValueError(f"the shapes {inputs[0]} and {inputs[1]} differ")
    if op.kind == "gate" and inputs[1] != (c, 1, 1):
        raise ValueError(f"a factor of shape {inputs[1]} for {inputs[0]}")
    if op.kind == "cat":
        if any(s[1:] != (h, w) for s in inputs):
            raise ValueError(f"the shapes {inputs} can't be concatenated")
        return sum(s[0] for s in inputs), h, w
    if op.kind == "slice":
        if op.start + op.count > c:
            raise ValueError(f"channels {op.start} to {op.start + op.count} of {c}")
        return op.count, h, w
    if op.kind == "shuffle" and c % op.groups:
        raise ValueError(f"{c} channels don't make {op.groups} groups")
    if op.kind == "window":
        axes = op.axes if op.attrs.get("bins") is None else bins(op.bins, h, w)
        return c, axes[0].output(h), axes[1].output(w)
    if op.kind == "mean":
        return c, 1, 1
    if op.kind == "flatten":
        return c * h * w, 1, 1
    return inputs[0]


def bins(size: tuple[int, int], h: int, w: int) -> tuple[Axis, Axis]:
    """Adaptive pooling to `size` as an ordinary one. ValueError: the map isn't a multiple of it."""
    if h % size[0] or w % size[1]:
        raise ValueError(f"a map of {h} x {w} doesn't divide into {size[0]} x {size[1]}")
    return Axis(h // size[0], h // size[0], 1, 0, 0), Axis(w // size[1], w // size[1], 1, 0, 0)


def users(ops: list[Op]) -> dict[Op, list[Op]]:
    """For every operation those that read its result."""
    found: dict[Op, list[Op]] = {op: [] for op in ops}
    for op in ops:
        for i in op.inputs:
            found[i].append(op)
    return found


def fuse(ops: list[Op], outputs: list[Op]) -> tuple[list[Op], list[Op]]:
    """ReLUs and residual sums into the convolution or linear layer before them; nothing is reordered."""
    ops, outputs = list(ops), list(outputs)
    order = {op: i for i, op in enumerate(ops)}
    read = users(ops)

    def replace(old: Op, new: Op) -> None:
        for user in read[old]:
            user.inputs = [new if i is old else i for i in user.inputs]
        read[new] = [u for u in read[new] if u is not old] + read[old]
        outputs[:] = [new if o is old else o for o in outputs]
        ops.remove(old)

    for op in list(ops):
        if op.kind == "add":
            product, other = sorted(op.inputs, key=order.__getitem__, reverse=True)
            free = product.kind in ("conv", "linear") and len(product.inputs) == 1 and not product.attrs.get("relu")
            if free and product is not other and read[product] == [op] and product not in outputs:
                product.inputs.append(other)
                read[other].append(product)
                read[other].remove(op)
                replace(op, product)
        elif op.kind == "act" and op.fn in ("relu", "relu6"):
            product = op.inputs[0]
            free = product.kind in ("conv", "linear") and not product.attrs.get("relu")
            if free and read[product] == [op] and product not in outputs:
                product.attrs["relu"] = True
                product.attrs["hi"] = 6.0 if op.fn == "relu6" else math.inf
                replace(op, product)
    return ops, outputs
