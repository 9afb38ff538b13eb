"""Taylor-FO (Molchanov et al. 2019, "Importance estimation for neural network pruning").

Equation 7: a weight's removal changes the loss by about g·w, its importance is (g·w)². For a filter the paper gives two
forms: the sum of its weights' importances, Σ (g·w)² (the default here, and what a sum reduction makes), and the group's
own contribution, (Σ g·w)²: `taylor:group=true`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("taylor", needs=("gradients",))
def taylor(layer: Layer, group: bool = False) -> Tensor:
    """(g·w)², g the mean gradient over the data; with group every weight gets its share of its filter's (Σ g·w)²."""
    change = layer.grad * layer.weight
    if not group:
        return change.square()
    from prunebench.rows import of_outputs, to_rows  # imports torch, which collecting tests does without

    rows = to_rows(layer.module, change)
    return of_outputs(layer.module, rows.sum(1).square() / rows.shape[1])
