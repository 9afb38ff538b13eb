"""A layer's rows under ½(w − ŵ)ᵀH(w − ŵ): which weights to remove, and what the others must then be.

weights: (rows, size), all rows share the Hessian (size, size), symmetric and positive definite; float64 throughout.
Optimal Brain Compression (Frantar & Alistarh 2022) is exact; SparseGPT (Frantar & Alistarh 2023) bounds the work.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Work above which a layer gets the cheaper way: multiplications, a few seconds' worth on one core.
GREEDY_WORK = 1e10
EXACT_WORK = 1e11
_CHUNK = 1 << 22  # numbers in a batch of submatrices or of removed directions
_STEP = 1e-6  # by how much a loss must exceed the one before it in its row to be told from it in float32
_BLOCK = 128  # columns that the sweep finishes before it tells the others


def removal_losses(weights: Tensor, inverse: Tensor) -> Tensor:
    """How much the error grows when a weight goes: (rows, size); the lowest of a row are the ones to remove first.

    Exact greedy order up to GREEDY_WORK = rows·size³: each weight's loss at the time it is the row's cheapest
    (OBC, algorithm 1), made increasing along the row's order, so that removing the lowest of several rows never skips
    one. Beyond: w²/(2[H⁻¹]_qq), as if it were the only one.
    """
    rows, size = weights.shape
    if rows * float(size) ** 3 > GREEDY_WORK:
        return weights.square() / (2 * inverse.diagonal())
    chunk = max(1, _CHUNK // size**2)
    return torch.cat([_greedy(part, inverse) for part in weights.split(chunk)])


def _greedy(weights: Tensor, inverse: Tensor) -> Tensor:
    rows, size = weights.shape
    w, each = weights.clone(), torch.arange(rows, device=weights.device)
    diagonal = inverse.diagonal().repeat(rows, 1)
    # H⁻¹ without the removed is H⁻¹ − Σ vvᵀ, one v for each: a pivoted Cholesky factor, cheaper than a matrix per row.
    gone = weights.new_zeros(rows, size, size)
    losses, last = torch.empty_like(weights), weights.new_zeros(rows)
    alive = torch.ones_like(weights, dtype=torch.bool)
    for k in range(size):
        cost = (w.square() / (2 * diagonal)).masked_fill(~alive, float("inf"))
        least, q = cost.min(1)
        last = torch.maximum(least, last * (1 + _STEP))
        losses[each, q] = last
        column = inverse[q] - (gone[each, :k, q][:, None] @ gone[:, :k])[:, 0]
        pivot = diagonal[each, q].sqrt()
        v = column / pivot[:, None]
        gone[:, k] = v
        w -= (w[each, q] / pivot)[:, None] * v
        alive[each, q] = False
        # Rounding can take the last ones to zero or below.
        diagonal = (diagonal - v.square()).clamp(min=1e-12 * inverse.diagonal())
    return losses


def reconstructed(weights: Tensor, keep: Tensor, hessian: Tensor, inverse: Tensor) -> Tensor:
    """The rows with zeros outside keep, the rest adjusted to the least error; exact up to EXACT_WORK, else by sweep."""
    kept = keep.sum(1).double()
    smaller = torch.minimum(kept, keep.shape[1] - kept)
    if float((smaller**3).sum()) / 3 > EXACT_WORK:
        return swept(weights, keep, inverse)
    return least_error(weights, keep, hessian, inverse)


def least_error(weights: Tensor, keep: Tensor, hessian: Tensor, inverse: Tensor) -> Tensor:
    """The minimum itself, row by row from the smaller of its two systems.

    For kept K and removed Q: ŵ_K = H_KK⁻¹(Hw)_K, or ŵ = w − H⁻¹_·Q([H⁻¹]_QQ)⁻¹w_Q.
    """
    found = weights.clone()
    few = keep.sum(1) <= keep.shape[1] // 2
    found[few] = _solved(hessian, keep[few], weights[few] @ hessian)
    found[~few] -= _solved(inverse, ~keep[~few], weights[~few]) @ inverse
    return found.masked_fill_(~keep, 0.0)


def _solved(matrix: Tensor, chosen: Tensor, right: Tensor) -> Tensor:
    # x with matrix[S, S] x_S = right_S for every row's S, zero outside; rows of like size together, padded by identity.
    solution = torch.zeros_like(right)
    counts = chosen.sum(1)
    order = counts.argsort()
    first = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    start = 0
    while start < len(order):
        # The largest of the chunk decides its padding; sizes grow slowly, so this estimate is nearly tight.
        size = max(1, int(counts[order[start]]))
        rows = order[start : start + max(1, _CHUNK // size**2)]
        start += len(rows)
        size = int(counts[rows[-1]])
        if size == 0:
            continue
        index = first[rows, :size]
        real = torch.arange(size, device=right.device) < counts[rows, None]
        system = matrix[index[:, :, None], index[:, None, :]]
        system.masked_fill_(~(real[:, :, None] & real[:, None, :]), 0.0)
        system.diagonal(dim1=1, dim2=2).add_((~real).to(right.dtype))
        part = right[rows].gather(1, index).masked_fill(~real, 0.0)
        answer = torch.cholesky_solve(part[..., None], torch.linalg.cholesky(system))[..., 0]
        solution[rows] = solution[rows].scatter(1, index, answer.masked_fill(~real, 0.0))
    return solution


def swept(weights: Tensor, keep: Tensor, inverse: Tensor) -> Tensor:
    """SparseGPT's sweep: columns from left to right, each error spread over the columns to its right.

    With H⁻¹ = UᵀU, U upper triangular, row j of U/U_jj is how the columns from j on make up for column j.
    """
    w = weights.clone()
    upper = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, w.shape[1], _BLOCK):
        stop = min(start + _BLOCK, w.shape[1])
        errors = torch.zeros_like(w[:, start:stop])
        for j in range(start, stop):
            error = (w[:, j] / upper[j, j]).masked_fill(keep[:, j], 0.0)
            errors[:, j - start] = error
            w[:, j:stop] -= error[:, None] * upper[j, j:stop]
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return w.masked_fill_(~keep, 0.0)
