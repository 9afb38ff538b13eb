"""The two sparse layers: convolution and linear with compressed weights, run by the native engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from prunebench.engine.native_loader import native
from prunebench.engine.padding import Axis, axes_of

LANES = 16  # images side by side in the lanes layout (native/engine.h)
_MAX_PLANS = 16  # plans of one layer kept for different input sizes


def lanes_pay(n: int) -> bool:
    """Whether a batch of n fills the lanes well enough: at least two thirds of each group of 16."""
    return 3 * n >= 2 * LANES * -(-n // LANES)


class SparseLayer(nn.Module):
    """Compressed weights and bias of a layer, and what the summary says about it."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, taps: int, groups: int, relu: bool, threads: int
    ):
        super().__init__()
        flat = weight.detach().reshape(weight.shape[0], -1).contiguous().numpy()
        self.shape = tuple(weight.shape)
        self.relu, self.threads = relu, threads
        self.native = native()
        self.packed = self.native.pack(flat, taps, groups)
        self.bias = None if bias is None else np.array(bias.detach().numpy(), np.float32)
        info = self.native.info(self.packed)
        self.nnz = int(info["nnz"])
        self.nbytes = int(info["bytes"]) + (0 if self.bias is None else self.bias.nbytes)
        self.layout = "not run yet"
        self.plans: dict[Any, tuple[Any, ...]] = {}

    @property
    def sparsity(self) -> float:
        """Share of the weights that are zero."""
        size = int(np.prod(self.shape))
        return 1.0 - self.nnz / size if size else 0.0

    def remember(self, key: Any, plan: tuple[Any, ...]) -> tuple[Any, ...]:
        """Keeps a plan; forgets the oldest beyond a few sizes."""
        for old in list(self.plans)[: 1 - _MAX_PLANS]:  # of a copy: other threads add and drop plans too
            self.plans.pop(old, None)
        self.plans[key] = plan
        return plan


class SparseConv2d(SparseLayer):
    """A Conv2d with compressed weights: (N, C, H, W) or (C, H, W) float32 in, the same out.

    A large batch comes out with its images innermost in memory (strides of (C, H, W, N)), which torch's elementwise
    operations keep and the next sparse layer reads without a conversion.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool, threads: int):
        kh, kw = conv.kernel_size
        super().__init__(conv.weight, conv.bias, kh * kw, conv.groups, relu, threads)
        self.axes = axes_of(conv)
        self.channels = conv.in_channels

    def plan(self, n: int, h: int, w: int) -> tuple[Any, ...]:
        """Native plan, output size and layout for one input size."""
        y, x = self.axes
        oh, ymap = y.output(h)
        ow, xmap = x.output(w)
        lanes = lanes_pay(n)
        made = self.native.plan(
            self.packed, (n, h, w), (y.taps, x.taps), (y.stride, x.stride), (y.dilation, x.dilation), (oh, ow),
            ymap, xmap, lanes, self.threads,
        )  # fmt: skip
        self.layout = "images in lanes" if lanes else "pixels in lanes"
        return self.remember((n, h, w), (made, oh, ow, lanes))

    def forward(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """act(conv(x) + bias + add)."""
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0), None if add is None else add.unsqueeze(0)).squeeze(0)
        n, c, h, w = x.shape
        rows = self.shape[0]
        if c != self.channels:
            raise ValueError(f"expected {self.channels} input channels, got {c}")
        found = self.plans.get((n, h, w))
        if found is None:
            if n == 0:
                return x.new_empty((0, rows, self.axes[0].output(h)[0], self.axes[1].output(w)[0]))
            found = self.plan(n, h, w)
        made, oh, ow, lanes = found
        if lanes:
            out = x.new_empty((rows, oh, ow, n)).permute(3, 0, 1, 2)  # new_empty: whatever torch's defaults are
        else:
            out = x.new_empty((n, rows, oh, ow))
        if add is None:
            self.native.conv(self.packed, made, x.numpy(), out.numpy(), self.bias, None, self.relu, self.threads)
        elif add.shape == out.shape and add.dtype == out.dtype:
            if add.stride() != out.stride():
                add = torch.empty_like(out).copy_(add)
            self.native.conv(self.packed, made, x.numpy(), out.numpy(), self.bias, add.numpy(), self.relu, self.threads)
        else:  # broadcast
            self.native.conv(self.packed, made, x.numpy(), out.numpy(), self.bias, None, False, self.threads)
            out = (out + add).relu() if self.relu else out + add
        return out


class SparseLinear(SparseLayer):
    """A Linear with compressed weights: (..., in) float32 in, (..., out) out."""

    def __init__(self, linear: nn.Linear, relu: bool, threads: int):
        super().__init__(linear.weight, linear.bias, 1, 1, relu, threads)
        self.point = Axis(1, 1, 1, 0, 0, "zeros").output(1)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """act(x @ W.T + bias)."""
        rows, features = self.shape
        if x.shape[-1] != features:
            raise ValueError(f"expected {features} input features, got {x.shape[-1]}")
        flat = x if x.dim() == 2 else x.reshape(-1, features)
        n = flat.shape[0]
        if n == 1:
            out = x.new_empty((1, rows))
            self.native.dot(self.packed, flat.numpy()[0], out.numpy()[0], self.bias, self.relu, self.threads)
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], rows)
        # a matrix comes out transposed in memory, which the next sparse linear layer reads without a conversion
        out = x.new_empty((rows, n)).t() if x.dim() == 2 else x.new_empty((n, rows))
        if n and rows:
            if features == 0:
                return self._empty(out, x)
            found = self.plans.get(n)
            if found is None:
                one = (1, 1)
                made = self.native.plan(
                    self.packed, (n, 1, 1), one, one, one, one, self.point, self.point, False, self.threads
                )
                self.layout = "images in lanes"
                found = self.remember(n, (made,))
            a, y = flat.numpy(), out.numpy()
            self.native.conv(
                self.packed, found[0], a[:, :, None, None], y[:, :, None, None],
                self.bias, None, self.relu, self.threads,
            )  # fmt: skip
        return out if x.dim() == 2 else out.reshape(*x.shape[:-1], rows)

    def _empty(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """A layer without inputs: its bias."""
        out[:] = 0.0 if self.bias is None else torch.from_numpy(self.bias)
        out = out.relu() if self.relu else out
        return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.shape[0])
