"""Need `gradients`: the mean gradient of the loss over all samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunebench.criteria.gathering.run import Run, own_statistics


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: ∂/∂w of the mean loss}, of the weight's shape, at least float32; zero for a layer that never ran.

    Each batch's mean loss weighs by its samples, so that a short last batch counts for what it is.
    """
    weights = [run.weights[name] for name in names]
    totals, samples = run.zeros(names), 0
    with own_statistics(run):
        for x, y in run.batches():
            found = torch.autograd.grad(run.loss(run.model(x), y), weights, allow_unused=True)
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    totals[name].add_(gradient, alpha=len(x))
            samples += len(x)
    return {name: total.div_(max(samples, 1)) for name, total in totals.items()}
