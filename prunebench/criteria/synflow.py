"""SynFlow (Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow").

Algorithm 1: s = ∂R/∂|w| ⊙ |w|, R the sum of outputs for an all-ones input and absolute parameters, scored anew in 100
rounds on the way to density d by way of d^(k/100).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("synflow", needs=("synaptic_flow",), rounds=100)
def synflow(layer: Layer) -> Tensor:
    """|w|·∂R/∂|w| / R: a weight's share of the flow, which sums to 1 over every layer that all paths pass."""
    return layer.weight.abs() * layer.synaptic_flow
