"""The state that the files in golden/ were written from, by formula: it depends on no random generator's version."""

import torch
from torch import Tensor


def sparse(*shape: int, every: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of quarters, exact in every stored dtype but int8; one in `every` is not zero."""
    index = torch.arange(torch.Size(shape).numel())
    values = torch.where(index * index % every == 1, index % 9 - 4.25, 0.0)
    return values.view(shape).to(dtype)


def golden_state() -> dict[str, Tensor]:
    """Weights of every kind that is encoded in its own way, one that is not sparse, a bias and a counter."""
    return {
        "conv.weight": sparse(8, 4, 3, 3, every=13),
        "conv.bias": torch.arange(3.0),
        "fc.weight": sparse(4, 250, every=97),
        "wide.weight": sparse(2, 2000, every=997),
        "half.weight": sparse(8, 27, every=13, dtype=torch.float16),
        "attention.in_proj_weight": sparse(12, 11, every=13),
        "dense.weight": torch.arange(1.0, 7.0).view(2, 3),
        "norm.num_batches_tracked": torch.tensor(7),
    }
