"""Classes of channels that stand or fall together: a union-find over channel numbers, some of them pinned."""

from __future__ import annotations

import torch
from torch import Tensor

PINNED = 0  # the class of all that must stay: the model's input and output, and what an unknown operation touches


class Mismatch(Exception):
    """Two channels meet that are not of one class, where classes are already decided."""


class Classes:
    """Channels are numbers; `unite` makes two one class; class 0 is never removed. fixed: uniting is only checked."""

    def __init__(self) -> None:
        self._parent = [PINNED]
        self.fixed = False

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> Tensor:
        """int64 (count,): as many channels, each a class of its own."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def roots(self) -> Tensor:
        """int64 (channels,): each channel's class, named by one of its channels."""
        return torch.tensor([self._find(i) for i in range(len(self._parent))])

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Make a[i] and b[i] one class for every i; shapes alike. Mismatch where classes are fixed and differ."""
        for left, right in torch.stack([a.flatten(), b.flatten()]).unique(dim=1).T.tolist():
            one, other = self._find(left), self._find(right)
            if one != other:
                if self.fixed:
                    raise Mismatch
                # The smaller number is the root, so that what is united with a pinned channel is pinned.
                self._parent[max(one, other)] = min(one, other)

    def pin(self, ids: Tensor) -> None:
        """Say that these channels stay."""
        if self.fixed:
            return
        for i in ids.unique().tolist():
            self._parent[self._find(i)] = PINNED

    def pinned(self, ids: Tensor) -> bool:
        """True where all of these channels stay."""
        return all(self._find(i) == PINNED for i in ids.unique().tolist())

    def _find(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i
