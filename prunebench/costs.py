"""Counting: parameters, nonzeros, bytes, and multiply-adds per sample (with and without the zeros)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.attention import Projection, unpacked
from prunebench.masks import PRUNABLE, prunable_modules


@dataclass(frozen=True)
class Costs:
    """Counts of one model: weights are numbers of scalars, macs multiply-adds per sample of conv and linear layers."""

    parameters: int
    prunable: int
    nonzeros: int  # of the prunable weights
    macs: int  # those with a nonzero weight, and all between activations (attention's two products)
    macs_dense: int


def count(model: nn.Module, example: Tensor) -> Costs:
    """Counts for one sample like those in `example` (n, …); stride, padding, dilation and groups are counted right.

    A weight of a convolution is used once per output position; padding positions count, as they do in a dense product.
    Matrix products between activations have no weights to prune: they count alike in both. Elementwise operations
    are not counted.
    """
    prunable = prunable_modules(model)
    uses: dict[int, Any] = {}  # positions that use a weight: a number, or float64 (rows,) where rows differ
    modules: dict[int, Any] = {id(m): m for m in (*model.modules(), *prunable.values()) if isinstance(m, PRUNABLE)}

    def hook(module: Any, args: tuple[Any, ...], out: Tensor) -> None:
        # Output positions per sample: a transposed convolution uses each weight once per input position instead.
        source = args[0] if getattr(module, "transposed", False) else out
        channels = (
            module.in_channels if source is args[0] and not isinstance(module, nn.Linear) else module.weight.shape[0]
        )
        positions: Any = source.numel() / channels / len(example)
        if isinstance(module, Projection) and module.lengths is not None:
            thirds = torch.tensor(module.lengths, dtype=torch.float64) * (positions / sum(module.lengths))
            positions = thirds.repeat_interleave(channels // 3)
        uses[id(module)] = uses.get(id(module), 0) + positions

    handles = [m.register_forward_hook(hook) for m in modules.values()]
    was_training = model.training
    model.eval()
    products = _Products()
    try:
        with torch.inference_mode(), unpacked(model, prunable), products:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    between = products.macs / len(example)
    weights = {i: m.weight.detach().flatten(1).cpu() for i, m in modules.items() if i in uses}
    pruned = [m.weight for m in prunable.values()]
    return Costs(
        parameters=sum(p.numel() for p in model.parameters()),
        prunable=sum(w.numel() for w in pruned),
        nonzeros=sum(int(w.count_nonzero()) for w in pruned),
        macs=round(between + sum(float((w.count_nonzero(1).double() * uses[i]).sum()) for i, w in weights.items())),
        macs_dense=round(
            between + sum(float((torch.ones(len(w)).double() * uses[i]).sum()) * w.shape[1] for i, w in weights.items())
        ),
    )


class _Products(TorchFunctionMode):
    """Counts the multiply-adds of matrix products between activations while it is on."""

    # The last two tensors of each are multiplied. What torch itself wrote in Python is seen as one call.
    _PRODUCTS = (torch.matmul, torch.bmm, torch.baddbmm, torch.einsum, Tensor.matmul, Tensor.__matmul__, Tensor.bmm)

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        if func is F.scaled_dot_product_attention:
            query, key, value = (given[n] if n in given else args[i] for i, n in enumerate(("query", "key", "value")))
            self.macs += math.prod(out.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        elif func is F.multi_head_attention_forward:
            self.macs += _attention_macs(args[0], args[1], bias_k=args[7], add_zero=args[9])
        elif func in self._PRODUCTS and not any(isinstance(a, nn.Parameter) for a in args):
            operands = [a for a in args if isinstance(a, Tensor)][-2:]
            if func is not torch.einsum:
                self.macs += out.numel() * operands[0].shape[-1]
            elif len(operands) == 2:
                self.macs += out.numel() * _contracted(args[0], *operands)
        return out


def _attention_macs(query: Tensor, key: Tensor, bias_k: Tensor | None, add_zero: bool) -> int:
    # Scores and mixture of projected tokens, (tokens, [n,] width); the heads share the width.
    keys = len(key) + (bias_k is not None) + add_zero
    return 2 * query.numel() * keys


def _contracted(equation: str, left: Tensor, right: Tensor) -> int:
    """How many products an element of an einsum's result sums up."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(inputs.split(","), (left, right), strict=True):
        before, _, after = term.partition("...")
        sizes.update(zip(before, tensor.shape, strict=False))
        sizes.update(zip(reversed(after), reversed(tensor.shape), strict=False))
    summed = set(sizes) - set(output) if arrow else {x for x in sizes if inputs.count(x) > 1}
    return math.prod(sizes[x] for x in summed)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind tensors: shared memory counts once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
