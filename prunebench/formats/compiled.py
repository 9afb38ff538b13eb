"""The decoder in C (`native/decode.c`) where it was built; where not, NumPy does the same, several times slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

decode: Any
try:
    from prunebench.formats import _decode as decode
except ImportError:  # installed without a C compiler
    decode = None


@dataclass(frozen=True)
class Target:
    """A matrix that is decoded: its values (nonzeros,), scales (rows, 1) float32 or None, and where it goes.

    values and out have one dtype, float32 where there are scales.
    """

    values: Tensor
    scales: Tensor | None
    out: Tensor
    rows: int
    columns: int

    @property
    def fits(self) -> bool:
        """True where C decodes into such a tensor."""
        return decode is not None and self.out.element_size() in (2, 4, 8) and self.out.numel() > 0

    @property
    def words(self) -> tuple[Any, ...]:
        """What every function of the decoder takes last."""
        scales = None if self.scales is None else content(self.scales)
        return content(self.values), self.out.element_size(), scales, content(self.out), self.rows, self.columns


def content(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor's bytes, uint8, in its own memory: NumPy lacks bfloat16, and C is told the widths."""
    if not tensor.numel():  # torch can't view nothing as another type
        return np.empty(0, np.uint8)
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
