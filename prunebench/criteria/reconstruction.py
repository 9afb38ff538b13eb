"""A layer's rows under ½(w − ŵ)ᵀH(w − ŵ): which weights to remove, and what the others must then be.

weights: (rows, size), all rows share the Hessian (size, size), symmetric and positive definite; float64 throughout.
Exact as in Optimal Brain Compression (Frantar & Alistarh 2022) where that takes seconds. For larger layers the choice
is greedy within blocks of inputs, and conjugate gradients take the place of SparseGPT's sweep (2023): on features of
images a sweep leaves 1.5 to 2 times the least error, ten iterations leave 1.01 times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GREEDY_WORK = 5e8  # multiplications, about a second's worth: decides how many inputs are weighed against each other
EXACT_WORK = 1e10  # multiplications in exact solutions, a few seconds' worth
ITERATIONS = 15
_CHUNK = 1 << 22  # numbers in a batch of submatrices or of removed directions
_STEP = 1e-6  # by how much a loss must exceed the one before it in its row to be told from it in float32


def removal_losses(weights: Tensor, hessian: Tensor) -> Tensor:
    """How much the error grows when a weight goes: (rows, size); the lowest of a row are the ones to remove first.

    Greedy (OBC, algorithm 1): a row loses its cheapest weight, w²/(2[H⁻¹]_qq), the others make up for it, and so on;
    each weight's loss is that at its turn, made increasing along the row's order, so that removing the lowest of
    several rows never skips one. Where rows·size³ exceeds GREEDY_WORK this is done within blocks of consecutive
    inputs, as if the blocks had nothing to do with each other: rows·size·block² then doesn't.
    """
    rows, size = weights.shape
    block = max(1, min(size, int(math.sqrt(GREEDY_WORK / max(1, rows * size)))))
    block = math.ceil(size / math.ceil(size / block))  # blocks of like size
    found = []
    for start in range(0, size, block):
        part = slice(start, min(start + block, size))
        inverse = _inverse(hessian[part, part])
        chunk = max(1, _CHUNK // block**2)
        found.append(torch.cat([_greedy(w, inverse) for w in weights[:, part].split(chunk)]))
    return torch.cat(found, 1)


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


def reconstructed(weights: Tensor, keep: Tensor, hessian: Tensor) -> Tensor:
    """The rows with zeros outside keep, the rest adjusted to the least error.

    Exact where that takes at most EXACT_WORK, or no more than ITERATIONS of conjugate gradients, which else come near.
    """
    kept = keep.sum(1).double()
    exact = float((torch.minimum(kept, keep.shape[1] - kept) ** 3).sum()) / 3
    if exact > max(EXACT_WORK, ITERATIONS * weights.numel() * keep.shape[1]):
        return descended(weights, keep, hessian)
    return least_error(weights, keep, hessian)


def least_error(weights: Tensor, keep: Tensor, hessian: Tensor) -> Tensor:
    """The minimum itself, row by row from the smaller of its two systems.

    For kept K and removed Q: ŵ_K = H_KK⁻¹(Hw)_K, or ŵ = w − H⁻¹_·Q([H⁻¹]_QQ)⁻¹w_Q.
    """
    found = weights.clone()
    few = keep.sum(1) <= keep.shape[1] // 2
    found[few] = _solved(hessian, keep[few], weights[few] @ hessian)
    if not few.all():
        inverse = _inverse(hessian)
        found[~few] -= _solved(inverse, ~keep[~few], weights[~few]) @ inverse
    return found.masked_fill_(~keep, 0.0)


def descended(weights: Tensor, keep: Tensor, hessian: Tensor) -> Tensor:
    """ITERATIONS of conjugate gradients from the pruned rows, all rows at once, scaled by H's diagonal.

    Every iteration lowers each row's error, so that none ends above that without an update.
    """
    found = weights.masked_fill(~keep, 0.0)
    diagonal = hessian.diagonal()
    residual = ((weights - found) @ hessian).masked_fill_(~keep, 0.0)
    direction = residual / diagonal
    size = (residual * direction).sum(1, keepdim=True)
    for _ in range(ITERATIONS):
        image = (direction @ hessian).masked_fill_(~keep, 0.0)
        curvature = (direction * image).sum(1, keepdim=True)
        step = (size / curvature).masked_fill(curvature <= 0, 0.0)  # a row at its minimum has no direction left
        found += step * direction
        residual -= step * image
        scaled = residual / diagonal
        before, size = size, (residual * scaled).sum(1, keepdim=True)
        direction = scaled + (size / before).masked_fill(before <= 0, 0.0) * direction
    return found


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


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
