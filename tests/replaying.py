"""The functions that captured calls are replayed with, as torch has them: so that the rules are tried without JAX."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def first(x):
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


class TorchArrays:
    def conv(self, x, kernel, strides, pads, dilation, groups):
        x = F.pad(first(x), (*pads[1], *pads[0]))
        return last(F.conv2d(x, kernel.permute(3, 2, 0, 1), None, strides, 0, dilation, groups))

    def dense(self, x, weight):
        return x @ weight

    def max_pool(self, x, window, strides):
        return last(F.max_pool2d(first(x), window, strides))

    def avg_pool(self, x, window, strides):
        return last(F.avg_pool2d(first(x), window, strides))

    def pad(self, x, pads, value):
        return F.pad(x, [p for pair in reversed(pads) for p in pair], value=value)

    def transpose(self, x, order):
        return x.permute(order)

    def reshape(self, x, shape):
        return x.reshape(shape)

    def expand(self, x, shape):
        return x.expand(shape)

    def concat(self, xs, axis):
        return torch.cat(xs, axis)

    def mean(self, x, axes, keep):
        return x.mean(axes, keep)

    def any(self, x, axis, keep):
        return x.any(axis, keep)

    def squeeze(self, x, axes):
        return x.squeeze(axes)

    def matmul(self, a, b):
        return a @ b

    def clip(self, x, low, high):
        return x.clamp(low, high)

    def where(self, condition, a, b):
        return torch.where(condition, a, b)

    def full_like(self, x, value):
        return torch.full_like(x, value)

    def softmax(self, x, axis):
        return x.softmax(axis)

    def function(self, name, x):
        return {"erf": torch.erf, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp,
                "sqrt": torch.sqrt}[name](x)  # fmt: skip
