"""Bitmask encoding: one bit per weight and the nonzero values, 0.53 bytes per weight at 90 % in float32; −0 becomes 0.

The parts are named as in compressed-tensors' sparse-bitmask format: shape, compressed, bitmask, row_offsets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PARTS = ("shape", "compressed", "bitmask", "row_offsets")


def pays(tensor: Tensor) -> bool:
    """True for a floating tensor of two dimensions or more that is at least half zero."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and 2 * int(tensor.count_nonzero()) <= tensor.numel()


def encode(tensor: Tensor) -> dict[str, Tensor]:
    """Parts of a tensor (rows, …): bits are packed per row, least significant first; row_offsets int64 (rows,)."""
    rows = tensor.detach().cpu().contiguous().flatten(1)
    kept = rows != 0
    return {
        "shape": torch.tensor(tensor.shape, dtype=torch.int64),
        "compressed": rows[kept],
        "bitmask": torch.from_numpy(np.packbits(kept.numpy(), axis=1, bitorder="little")),
        "row_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])[:-1],
    }


def decode(parts: Mapping[str, Tensor]) -> Tensor:
    """The dense tensor; ValueError where the parts disagree with each other."""
    shape = [int(n) for n in parts["shape"]]
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a bitmask tensor can't have shape {shape}")
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    bits, values = parts["bitmask"], parts["compressed"]
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (rows, (columns + 7) // 8):
        raise ValueError(f"the bitmask has shape {tuple(bits.shape)}, which does not fit {shape}")
    kept = torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=columns, bitorder="little")).bool()
    if values.ndim != 1 or int(kept.sum()) != len(values):
        raise ValueError(f"the bitmask marks {int(kept.sum())} values, but {values.numel()} are stored")
    dense = torch.zeros(rows, columns, dtype=values.dtype)
    dense[kept] = values
    return dense.view(shape)
