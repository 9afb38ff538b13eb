"""Where each padded coordinate of an image comes from: every padding of nn.Conv2d as one map per axis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import nn

_NUMPY_MODE = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Axis(NamedTuple):
    """One axis of a convolution."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    mode: str

    def output(self, size: int) -> tuple[int, np.ndarray]:
        """Output size, and the source coordinate of each padded one (int32, -1 = zero).

        ValueError: too small an input for the kernel or the padding.
        """
        reach = self.dilation * (self.taps - 1) + 1
        padded = size + self.before + self.after
        pad = max(self.before, self.after)
        if size < 1 or padded < reach:
            raise ValueError(f"a kernel that reaches over {reach} doesn't fit a padded input of {padded}")
        if (self.mode == "reflect" and pad >= size) or (self.mode == "circular" and pad > size):
            raise ValueError(f"{self.mode} padding of {pad} is too much for an input of {size}")
        count = (padded - reach) // self.stride + 1
        index = np.arange(size, dtype=np.int32)
        if self.mode == "zeros":
            index = np.pad(index, (self.before, self.after), constant_values=-1)
        else:
            index = np.pad(index, (self.before, self.after), mode=_NUMPY_MODE[self.mode])  # type: ignore[call-overload]
        return count, np.ascontiguousarray(index[: (count - 1) * self.stride + reach], dtype=np.int32)


def axes_of(conv: nn.Conv2d) -> tuple[Axis, Axis]:
    """The two axes of a Conv2d, string paddings resolved as torch does (the odd one goes after)."""
    axes = []
    for i in range(2):
        taps, stride, dilation = int(conv.kernel_size[i]), int(conv.stride[i]), int(conv.dilation[i])
        if conv.padding == "valid":
            before = after = 0
        elif conv.padding == "same":
            total = dilation * (taps - 1)
            before, after = total // 2, total - total // 2
        else:
            before = after = int(conv.padding[i])
        axes.append(Axis(taps, stride, dilation, before, after, conv.padding_mode))
    return axes[0], axes[1]
