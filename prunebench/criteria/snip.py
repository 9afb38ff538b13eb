"""SNIP, connection sensitivity (Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity").

Equations 4 and 5: s = |g ⊙ w|, the effect on the loss of multiplying a connection by 1 - δ. The paper divides by the
sum of all scores, which changes no ranking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


@criterion("snip", needs=("gradients",))
def snip(layer: Layer) -> Tensor:
    """|g·w|, g the mean gradient over the data."""
    return (layer.grad * layer.weight).abs()
