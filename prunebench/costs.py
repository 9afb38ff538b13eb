"""Counting: parameters, nonzeros, bytes, and multiply-adds per sample (with and without the zeros)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.masks import PRUNABLE, prunable_modules


@dataclass(frozen=True)
class Costs:
    """Counts of one model: weights are numbers of scalars, macs multiply-adds per sample of conv and linear layers."""

    parameters: int
    prunable: int
    nonzeros: int  # of the prunable weights
    macs: int  # those with a nonzero weight
    macs_dense: int


def count(model: nn.Module, example: Tensor) -> Costs:
    """Counts for one sample like those in `example` (n, …); stride, padding, dilation and groups are counted right.

    A weight of a convolution is used once per output position; padding positions count, as they do in a dense product.
    Operations between activations (attention, squeeze-and-excite scaling) have no weights and are not counted.
    """
    uses: dict[int, float] = {}
    modules: dict[int, Any] = {id(m): m for m in model.modules() if isinstance(m, PRUNABLE)}

    def hook(module: Any, args: tuple[Any, ...], out: Tensor) -> None:
        # Output positions per sample: a transposed convolution uses each weight once per input position instead.
        source = args[0] if getattr(module, "transposed", False) else out
        channels = (
            module.in_channels if source is args[0] and not isinstance(module, nn.Linear) else module.weight.shape[0]
        )
        uses[id(module)] = uses.get(id(module), 0) + source.numel() / channels / len(example)

    handles = [m.register_forward_hook(hook) for m in modules.values()]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    weights = {i: m.weight.detach() for i, m in modules.items()}
    prunable = [m.weight for m in prunable_modules(model).values()]
    return Costs(
        parameters=sum(p.numel() for p in model.parameters()),
        prunable=sum(w.numel() for w in prunable),
        nonzeros=sum(int(w.count_nonzero()) for w in prunable),
        macs=round(sum(n * int(weights[i].count_nonzero()) for i, n in uses.items())),
        macs_dense=round(sum(n * weights[i].numel() for i, n in uses.items())),
    )


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind tensors: shared memory counts once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
