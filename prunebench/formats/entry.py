"""One tensor of a checkpoint: how it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import torch

from prunebench.formats import bitmask, csr, delta

# Each is VALUES, PARTS and CHOICES (names of parts: the values', all that must and all that may be there), encode,
# check, and to decode spread (in C) and positions (without it).
ENCODINGS: Mapping[str, ModuleType] = {"bitmask": bitmask, "csr": csr, "delta": delta}
SCALE = "weight_scale"  # compressed-tensors' name for it


@dataclass(frozen=True)
class Entry:
    """A tensor's shape and dtype once read, its encoding ("dense" or one of ENCODINGS) and its values' dtype.

    stem: what the names of its parts begin with.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    encoding: str
    values: torch.dtype
    stem: str

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def count(self) -> int:
        """Weights, zeros among them."""
        return math.prod(self.shape)

    @property
    def scaled(self) -> bool:
        """True for int8 values of a floating tensor."""
        return self.values == torch.int8 and self.dtype != torch.int8


def stem_of(name: str) -> str:
    """`fc` of `fc.weight`: compressed-tensors puts its parts' names there, and appends `.weight` on reading."""
    return name.removesuffix(".weight")
