"""Need `input_norms`: the L2 norm of what every weight is multiplied with, over all samples and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prunebench.criteria.gathering.inputs import is_convolution, unflipped, watch, windows
from prunebench.criteria.gathering.run import Run, precise


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: ‖X_j‖₂ for every weight}, of the weight's shape, at least float32.

    X_j is the input feature j of a linear layer, over samples (and tokens); of a convolution the input channel at one
    tap of the kernel, over samples and output positions, padding included as the zeros it is. Only sums of squares
    are kept between batches.
    """
    totals: dict[str, Tensor] = {}

    def see(name: str, module: Any, x: Tensor, out: Tensor) -> None:
        found = _squares(module, x.to(precise(x.dtype)), out)
        totals[name] = totals[name] + found if name in totals else found

    watch(run, names, see)
    return {name: _spread(run.modules[name], totals[name].sqrt()) for name in names}


def _squares(module: Any, x: Tensor, out: Tensor) -> Tensor:
    """(features,) for a linear layer, (in channels, *taps) for a convolution."""
    if not is_convolution(module):
        return x.reshape(-1, x.shape[-1]).square().sum(0)
    if x.ndim > len(module.kernel_size) + 1:
        # Samples are summed first: every tap meets the same positions in each of them.
        x, out = x.square().sum(0, keepdim=True), out[:1]
    else:
        x = x.square()
    positions = tuple(range(2, 2 + len(module.kernel_size)))
    return unflipped(module, windows(module, x, out).sum((0, *positions)))


def _spread(module: Any, norms: Tensor) -> Tensor:
    shape = module.weight.shape
    if not is_convolution(module):
        return norms.expand(shape)
    if module.transposed:  # (in, out/groups, *taps): the input channel is the weight's first dimension
        return norms[:, None].expand(shape)
    per_group = norms.reshape(module.groups, 1, *shape[1:])
    return per_group.expand(-1, shape[0] // module.groups, *shape[1:]).reshape(shape)
