"""What is known of a tensor inside a model: which channel each element belongs to, and its value where that is fixed.

Both are tensors of the real one's shape. Most are the same all over a channel's map, so they are kept as expanded
views (stride 0) and worked on in their narrow form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NAN = float("nan")


@dataclass(frozen=True)
class Value:
    """ids: int64, the channel each element is of; known: float64, its value whatever the input is, else NaN."""

    ids: Tensor
    known: Tensor


def unknown(shape: torch.Size, ids: Tensor | None = None) -> Value:
    """A value of which nothing is known; its channels are pinned unless ids (expandable to shape) are given."""
    ids = torch.zeros((), dtype=torch.int64) if ids is None else ids
    return Value(ids.expand(shape), torch.tensor(NAN, dtype=torch.float64).expand(shape))


def along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    """The vector as a view that broadcasts along one axis of ndim."""
    shape = [1] * ndim
    shape[axis] = -1
    return vector.view(shape)


def narrow(tensor: Tensor) -> Tensor:
    """The tensor with every expanded (stride 0) axis cut to length 1: the same under broadcasting."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor[tuple(slice(0, 1) if step == 0 and n else slice(None) for n, step in axes)]


def per_channel(tensor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(n,) first elements along an axis, and bool (n,): True where the rest along all other axes is equal (no NaN)."""
    size = tensor.shape[axis]
    rows = narrow(tensor).movedim(axis, 0).flatten(1)
    first = rows[:, 0]
    return first.expand(size), (rows == first[:, None]).all(1).expand(size)


def channels(ids: Tensor, axis: int) -> Tensor | None:
    """int64 (n,): the channels along an axis, or None where an index along it holds more than one channel."""
    first, same = per_channel(ids, axis)
    return first if bool(same.all()) else None


def constants(known: Tensor, axis: int) -> Tensor:
    """float64 (n,): the one value that all elements at an index along the axis have, else NaN."""
    first, same = per_channel(known, axis)
    return torch.where(same, first, torch.full_like(first, NAN))


def varies(ids: Tensor, axis: int) -> bool:
    """True where the channel changes along an axis."""
    ids = narrow(ids)
    return ids.shape[axis] > 1 and not bool((ids == ids.narrow(axis, 0, 1)).all())
