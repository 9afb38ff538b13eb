"""torch's Conv2d and Linear as operations of the engine."""

from __future__ import annotations

from torch import nn

from prunebench.engine.ir import Axis, Op
from prunebench.engine.weights import Weights

Pads = tuple[int, int, int, int]  # of zeros: left, right, above, below, as F.pad has them
NO_PADS: Pads = (0, 0, 0, 0)


def conv_axes(conv: nn.Conv2d, pads: Pads = NO_PADS) -> tuple[Axis, Axis]:
    """The two axes of a Conv2d on an input padded by `pads`; "same" as torch does it (the odd one goes after)."""
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
        before, after = before + pads[2 - 2 * i], after + pads[3 - 2 * i]
        axes.append(Axis(taps, stride, dilation, before, after, conv.padding_mode))
    return axes[0], axes[1]


def product_op(module: nn.Module, inputs: list[Op], name: str, pads: Pads = NO_PADS) -> Op:
    """The operation of a Conv2d, its input padded by `pads` before, or of a Linear module."""
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    bias = None if module.bias is None else module.bias.detach().numpy()
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    weights = Weights(module.weight.detach().numpy(), bias, groups)
    if isinstance(module, nn.Conv2d):
        axes = conv_axes(module, pads)
        return Op("conv", inputs, name, {"weights": weights, "axes": axes, "channels": module.in_channels})
    return Op("linear", inputs, name, {"weights": weights, "channels": module.in_features}, flat=True)
