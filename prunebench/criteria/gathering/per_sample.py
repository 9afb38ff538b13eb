"""Needs `per_sample_gradients`, `squared_gradients` and `hessian_diag`: what one sample after the other says.

The mean of squared per-sample gradients is the diagonal of the empirical Fisher information, which stands for the
Hessian's diagonal at a minimum of a log-likelihood (LeCun et al. 1990; Theis et al. 2018). The square of a batch's
mean gradient is not it: samples that cancel would count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunebench.criteria.gathering.run import Run, evaluating, precise

# Gradients held at once, in bytes: decides how many samples are differentiated together.
BLOCK_BYTES = 128 * 2**20
# More samples at once gain nothing, while their activations take memory.
BLOCK_SAMPLES = 32

_Gradients = Callable[[Tensor, Tensor], dict[str, Tensor]]


def blocks(run: Run, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """{name: (n, *weight) gradients of n samples} for one block of samples after another, in the data's order."""
    weights = {name: run.weights[name].detach() for name in names}
    size = sum(w.numel() * w.element_size() for w in weights.values())
    most = max(1, min(BLOCK_SAMPLES, BLOCK_BYTES // max(size, 1)))
    method: _Gradients = _together(run, weights) if most > 1 else _one_by_one(run, names)
    for batch_x, batch_y in run.batches():
        for x, y in zip(batch_x.split(most), batch_y.split(most), strict=True):
            try:
                found = method(x, y)
            except RuntimeError:  # vmap refuses what it can't batch: control flow on values, in-place on constants, …
                method = _one_by_one(run, names)
                found = method(x, y)
            yield found


def _together(run: Run, weights: dict[str, Tensor]) -> _Gradients:
    def value(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return run.loss(functional_call(run.model, weights, (x[None],)), y[None])

    each = vmap(grad(value), in_dims=(None, 0, 0), randomness="different")

    def together(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        # The fused attention kernels would be looped over the samples.
        with sdpa_kernel(SDPBackend.MATH):
            return each(weights, x, y)

    return together


def _one_by_one(run: Run, names: Sequence[str]) -> _Gradients:
    weights = [run.weights[name] for name in names]

    def each(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        for one_x, one_y in zip(x.split(1), y.split(1), strict=True):
            found = torch.autograd.grad(run.loss(run.model(one_x), one_y), weights, allow_unused=True)
            for name, weight, gradient in zip(names, weights, found, strict=True):
                rows[name].append(torch.zeros_like(weight) if gradient is None else gradient)
        return {name: torch.stack(row).detach() for name, row in rows.items()}

    return each


def squares(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: mean over samples of the squared per-sample gradient}, of the weight's shape, at least float32."""
    totals, samples = run.zeros(names), 0
    for block in blocks(run, names):
        for name, gradients in block.items():
            totals[name] += gradients.to(precise(gradients.dtype)).square_().sum(0)
        samples += len(gradients)
    return {name: total.div_(max(samples, 1)) for name, total in totals.items()}


@dataclass(frozen=True)
class GradientStream:
    """One layer's per-sample gradients, block by block: iterate as often as needed, each time is a pass over the data.

    Yields (n, *weight) tensors in the data's order, n at most BLOCK_SAMPLES, so that memory stays bounded whatever
    the number of samples. The model is in evaluation mode only while a block is made.
    """

    run: Run
    name: str

    def __iter__(self) -> Iterator[Tensor]:
        source = blocks(self.run, [self.name])
        while True:
            with evaluating(self.run.model):
                block = next(source, None)
            if block is None:
                return
            yield block[self.name].detach()


def streams(run: Run, names: Sequence[str]) -> dict[str, GradientStream]:
    """{name: its stream}; nothing is computed before a criterion iterates."""
    return {name: GradientStream(run, name) for name in names}
