"""Need `hessian_product`: H·g, the Hessian of the loss times its gradient, by a double backward pass.

Written `hessian_product:temperature=200` it is that of the loss on logits / 200, as GraSP wants it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunebench.criteria.gathering.replacing import Replacing
from prunebench.criteria.gathering.run import Run, own_statistics

# These have no second derivative in torch, but what they are made of has.
_COMPOSED = {
    "hardsigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hardswish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
}


def gather(run: Run, names: Sequence[str], temperature: float = 1.0) -> dict[str, Tensor]:
    """{name: its part of H·g}, of the weight's shape, at least float32.

    H and g are those of the mean loss over all samples, with respect to all prunable weights together; the data is
    read twice, since g must be whole before H can meet it.
    """
    whole = list(run.weights)
    g, samples = run.zeros(whole), 0
    product = run.zeros(names)
    # The fused attention kernels have no second derivative either.
    with sdpa_kernel(SDPBackend.MATH), Replacing(_COMPOSED), own_statistics(run):
        for x, y in run.batches():
            for name, part in _gradients(run, x, y, temperature, double=False).items():
                g[name].add_(part, alpha=len(x))
            samples += len(x)
        for x, y in run.batches():
            first = _gradients(run, x, y, temperature, double=True)
            dots = [(part.to(g[name].dtype) * g[name]).sum() for name, part in first.items() if part.requires_grad]
            if not dots:  # a loss that is linear in every weight has no curvature
                continue
            weights = [run.weights[name] for name in names]
            found = torch.autograd.grad(torch.stack(dots).sum(), weights, allow_unused=True)
            for name, part in zip(names, found, strict=True):
                if part is not None:
                    product[name].add_(part, alpha=len(x))
    # Both sums are over samples: once for g, once for H.
    return {name: total.div_(max(samples, 1) ** 2) for name, total in product.items()}


def _gradients(run: Run, x: Tensor, y: Tensor, temperature: float, double: bool) -> dict[str, Tensor]:
    out = run.model(x)
    value = run.loss(out if temperature == 1.0 else out / temperature, y)
    weights = run.weights
    found = torch.autograd.grad(value, list(weights.values()), create_graph=double, allow_unused=True)
    return {name: part for name, part in zip(weights, found, strict=True) if part is not None}
