"""Prune and regrow while training sparse from the start: RigL, and SET as its random variant.

Evci et al. 2020, "Rigging the Lottery", algorithm 1. Every n steps, until a share of the training, each layer drops
the smallest k = f(t)·|kept| of its weights and grows k others, with f(t) = α/2·(1 + cos(πt/T)). RigL grows where the
loss's gradient is largest; SET (Mocanu et al. 2018) anywhere, at random. A weight that was just dropped may be grown
at once: it then keeps its value, as nothing has happened to it. Newly grown weights start at 0, with no momentum.
Such a move takes the place of the optimizer's step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.masks import lowest, pruned_count
from prunebench.recipe import Recipe


def fraction(alpha: float, t: float) -> float:
    """The share of a layer's kept weights that moves at progress t in [0, 1] of the moving: α at 0, 0 at 1."""
    return alpha / 2 * (1 + math.cos(math.pi * t))


def moved(weight: Tensor, mask: Tensor, merit: Tensor, count: int) -> Tensor:
    """The mask after `count` of its weights moved: the smallest |weight| dropped, the highest merit grown.

    weight, mask (bool, True = kept) and merit have one shape; ties go by position, the earlier is dropped and grown
    first. The mask keeps its number of weights.
    """
    kept = mask.flatten()
    count = min(count, int(kept.sum()))
    size = weight.detach().flatten().abs().float()
    kept = kept & ~lowest(size.masked_fill(~kept, math.inf), count)
    # Highest first is lowest first of the negative.
    grown = lowest((-merit.flatten().float()).masked_fill(kept, math.inf), count)
    return (kept | grown).view(mask.shape)


@torch.no_grad()
def rescale(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Multiply each layer's initial weights by 1/√density, so that its outputs keep the variance they were made for.

    Initialisers draw for a dense fan-in; Evci et al. 2022, "Gradient Flow in Sparse Neural Networks and How
    Lottery Tickets Win", find that sparse training stalls without this (there per neuron, here per layer).
    """
    for name, mask in masks.items():
        weights[name].mul_((mask.numel() / int(mask.sum())) ** 0.5)


class Regrower:
    """Moves weights between the masks' places during training; `step` goes where the optimizer's step would.

    weights: {parameter name: weight}, masks: the same names, replaced through `replace` after every move. generator:
    decides what SET grows; its state belongs to the training's.
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Mapping[str, nn.Parameter],
        masks: Callable[[], Mapping[str, Tensor]],
        replace: Callable[[Mapping[str, Tensor]], None],
        generator: torch.Generator,
    ) -> None:
        self.recipe, self.weights, self.generator = recipe, weights, generator
        self._masks, self._replace = masks, replace

    def step(self, step: int, steps: int, optimizer: torch.optim.Optimizer) -> bool:
        """Move at every n-th step but the first, up to the recipe's share of the steps; True where it did."""
        last = self.recipe.regrow_until * steps
        if step == 0 or step >= last or step % self.recipe.regrow_every:
            return False
        self.move(fraction(self.recipe.regrow_fraction, step / last), optimizer)
        return True

    @torch.no_grad()
    def move(self, share: float, optimizer: torch.optim.Optimizer) -> None:
        """Move a share of every layer's kept weights, rounded half up."""
        before, after = self._masks(), {}
        for name, mask in before.items():
            weight = self.weights[name]
            after[name] = moved(weight, mask, self._merit(weight), pruned_count(int(mask.sum()), share))
            new = after[name] & ~mask
            weight.masked_fill_(new, 0.0)
            _forget(optimizer.state.get(weight, {}), new)
        self._replace(after)

    def _merit(self, weight: nn.Parameter) -> Tensor:
        if self.recipe.regrow == "random":
            return torch.rand(weight.shape, generator=self.generator).to(weight.device)
        return torch.zeros_like(weight) if weight.grad is None else weight.grad.abs()


def _forget(state: Mapping[str, Any], where: Tensor) -> None:
    # Momentum and second moments, gathered while the weight was masked, tell of another network.
    for value in state.values():
        if isinstance(value, Tensor) and value.shape == where.shape:
            value.masked_fill_(where, 0.0)
