"""Need `input_gram`: XᵀX of a layer's (unfolded) inputs, the Hessian of its output's squared error up to a factor of 2.

Minimising ‖XWᵀ - XŴᵀ‖² per layer is what Optimal Brain Compression and SparseGPT do (Frantar & Alistarh 2022, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from prunebench.criteria.gathering.inputs import is_convolution, unflipped, watch, windows
from prunebench.criteria.gathering.run import Run, precise

# Unfolded inputs held at once, in bytes; one sample's are the least.
BLOCK_BYTES = 64 * 2**20


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: (groups, K, K)}, at least float32, summed over all samples and output positions.

    K counts the inputs of one output: in_features of a linear layer (groups 1), in_channels/groups · taps of a
    convolution in the order of its weight's row, `weight[o].flatten()`, also where the convolution is transposed: there
    the order is (in/groups, *taps) for a fixed output channel. X is never held whole.
    """
    totals: dict[str, Tensor] = {}

    def see(name: str, module: Any, x: Tensor, out: Tensor) -> None:
        for rows in _rows(module, x, out):
            total = totals.get(name)
            if total is None:
                groups, _, width = rows.shape
                total = totals[name] = rows.new_zeros(groups, width, width)
            total.baddbmm_(rows.mT, rows)

    watch(run, names, see)
    return totals


def _rows(module: Any, x: Tensor, out: Tensor) -> Iterator[Tensor]:
    """(groups, positions, K) of one block of samples after another."""
    x = x.to(precise(x.dtype))
    if not is_convolution(module):
        yield x.reshape(1, -1, x.shape[-1])
        return
    seen = windows(module, x, out)
    dims, taps = len(module.kernel_size), module.kernel_size
    # (n, channels, *positions, *taps) -> (groups, n · positions, channels/groups · taps)
    seen = seen.movedim(1, 1 + dims)
    size = seen[0].numel() * seen.element_size()
    for part in seen.split(max(1, BLOCK_BYTES // size)):
        flat = unflipped(module, part).reshape(-1, module.groups, module.in_channels // module.groups * math.prod(taps))
        yield flat.transpose(0, 1)


def bytes_of(module: Any) -> int:
    """Memory of one layer's matrix."""
    if not is_convolution(module):
        return 4 * int(module.in_features) ** 2
    width = module.in_channels // module.groups * math.prod(module.kernel_size)
    return int(4 * module.groups * width**2)
