"""Magnitude: the norms L1, L2, Lp and L∞ of a weight or a filter (Han et al. 2015; Li et al. 2017 for filters).

For single weights every norm ranks alike, since |w| is monotone in each; they differ once a filter's weights
are put together: (Σ|w|^p)^(1/p), and the maximum for L∞.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prunebench.registry import criterion

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.criteria import Layer


def norm(scores: Tensor, p: float) -> Tensor:
    """(Σ|s|^p)^(1/p) over the last dimension; the maximum for p = ∞."""
    return scores.abs().norm(p=float(p), dim=-1)


def _check(p: float) -> None:
    if not p > 0:
        raise ValueError("give p > 0")


def magnitude(layer: Layer) -> Tensor:
    """|w|, of the weight's shape."""
    return layer.weight.abs()


@criterion("l1", reduce=partial(norm, p=1))
def l1(layer: Layer) -> Tensor:
    """|w|; a filter's score is Σ|w|."""
    return magnitude(layer)


@criterion("l2", reduce=partial(norm, p=2))
def l2(layer: Layer) -> Tensor:
    """|w|; a filter's score is √Σw²."""
    return magnitude(layer)


@criterion("linf", reduce=partial(norm, p=float("inf")))
def linf(layer: Layer) -> Tensor:
    """|w|; a filter's score is max|w|."""
    return magnitude(layer)


@criterion("lp", reduce=norm, check=_check)
def lp(layer: Layer, p: float = 3) -> Tensor:
    """|w|; a filter's score is (Σ|w|^p)^(1/p)."""
    return magnitude(layer)
