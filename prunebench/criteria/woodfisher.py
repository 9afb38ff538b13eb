"""WoodFisher: the Optimal Brain Surgeon with an empirical Fisher matrix (Singh & Alistarh 2020).

F = λI + (1/N) Σ g gᵀ stands for the loss's Hessian, block-diagonal over runs of `block` weights of a layer. Removing
weight q raises the loss by w_q²/(2[F⁻¹]_qq) while the others of its block move by −w_q F⁻¹e_q/[F⁻¹]_qq; several removed
from one block are made up for jointly, at the exact minimum of the quadratic model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer

_CHUNK = 1 << 22  # gradient entries worked on at once


def surgeon(layer: Layer, keep: Tensor, block: int = 50, damping: float = 1e-5, batch: int = 1) -> Tensor:
    """The weight with zeros outside keep and the rest moved to make up for them; of the weight's shape."""
    import torch

    from prunebench.criteria.inverse_fisher import compensated
    from prunebench.rows import from_rows, to_rows

    weights, kept = (to_rows(layer.module, t).flatten() for t in (layer.weight, keep))
    found = torch.empty_like(weights)
    for part, gradients in _blocks(layer, block, batch):
        shape = (len(gradients), gradients.shape[2])
        w, k = _padded(weights[part], shape), _padded(kept[part], shape)
        found[part] = compensated(gradients, w, k, damping).flatten()[: found[part].numel()].to(found.dtype)
    return from_rows(layer.module, found)


def _check(block: int, damping: float, batch: int, update: bool) -> None:
    """ValueError for parameters that can't be."""
    for name, value in (("block", block), ("batch", batch)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"give {name} as a whole number of at least 1")
    if not 0 < damping < math.inf:
        raise ValueError("give damping > 0")


@criterion("woodfisher", needs=("sample_gradients",), update=surgeon, check=_check)
def woodfisher(layer: Layer, block: int = 50, damping: float = 1e-5, batch: int = 1, update: bool = True) -> Tensor:
    """w²/(2[F⁻¹]_qq); a filter's score is the sum. A weight that is zero is taken as removed: F is that of the others.

    block: weights that are seen together, consecutive in an output's row; damping: λ; batch: samples averaged to one
    gradient, 1 for the Fisher matrix itself; update: whether the kept weights move.
    """
    import torch

    from prunebench.criteria.inverse_fisher import inverse_diagonal
    from prunebench.rows import from_rows, to_rows

    weights = to_rows(layer.module, layer.weight).flatten().double()
    scores = torch.empty_like(weights)
    for part, gradients in _blocks(layer, block, batch):
        w = _padded(weights[part], (len(gradients), gradients.shape[2]))
        score = w.square() / (2 * inverse_diagonal(gradients * (w != 0)[:, None], damping))
        scores[part] = score.flatten()[: scores[part].numel()]
    return from_rows(layer.module, scores)


def _blocks(layer: Layer, block: int, batch: int) -> Iterator[tuple[slice, Tensor]]:
    """(which weights, their gradients (blocks, N, block), the last block filled up with zeros)."""
    source = layer.sample_gradients
    block = min(block, source.size)
    width = block * max(1, _CHUNK // (source.count * block))
    for start, gradients in source.blocks(width):
        if batch > 1:
            gradients = _averaged(gradients, batch)
        padded = _padded(gradients, (len(gradients), -(-gradients.shape[1] // block) * block))
        yield (
            slice(start, start + gradients.shape[1]),
            padded.view(len(gradients), -1, block).transpose(0, 1),
        )


def _averaged(gradients: Tensor, batch: int) -> Tensor:
    import torch

    whole = len(gradients) // batch * batch
    means = [gradients[:whole].view(-1, batch, gradients.shape[1]).mean(1)]
    if whole < len(gradients):  # a short last group counts as one more
        means.append(gradients[whole:].mean(0, keepdim=True))
    return torch.cat(means)


def _padded(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Values in their order as (rows, columns) of the shape: zeros fill the columns, or the end of a flat tensor."""
    if values.ndim == 2:
        padded = values.new_zeros(shape)
        padded[:, : values.shape[1]] = values
        return padded
    padded = values.new_zeros(shape[0] * shape[1])
    padded[: len(values)] = values
    return padded.view(shape)
