"""N:M: of every M consecutive input channels N are kept (Mishra et al. 2021, "Accelerating Sparse DNNs"; 2:4)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


def _check(n: int, m: int) -> None:
    if not (isinstance(n, int) and isinstance(m, int) and 0 < n < m):
        raise ValueError("give whole numbers with 0 < n < m, for example n_m:n=2:m=4")


@granularity("n_m", check=_check, sparsity=lambda n, m: 1 - n / m)
def n_m(scored: Scored, n: int = 2, m: int = 4) -> list[UnitSet]:
    """One set per layer; its units are the m - n lowest weights of every group, ties by position. The others stay.

    A group is m consecutive input channels: along a row of a linear layer, at one tap of one filter of a convolution.
    So the sparsity is 1 - n/m and no other; on the way there groups keep between n and m weights. Layers whose
    input channels (per convolution group) are no multiple of m stay dense and outside the total; a NotPrunedWarning
    names them. Raises UsageError where that is all of them.
    """
    from prunebench.errors import UsageError
    from prunebench.masks import NotPrunedWarning

    sets, dense = [], []
    for name, scores in scored.scores.items():
        if _inputs(scored.modules[name]) % m:
            dense.append(name)
        else:
            sets.append(_layer(name, scores, scored.kept(name), _axis(scored.modules[name]), n, m))
    if not sets:
        raise UsageError(f"no layer of {type(scored.model).__name__} has input channels that are a multiple of {m}")
    if dense:
        warnings.warn(
            f"not pruned: {', '.join(dense)} stay dense, because their input channels are no multiple of {m}",
            NotPrunedWarning,
            stacklevel=2,
        )
    return sets


def _axis(module: Any) -> int:
    # A transposed convolution's weight is (in, out/groups, …), every other one (out, in/groups, …).
    return 0 if getattr(module, "transposed", False) else 1


def _inputs(module: Any) -> int:
    return int(module.weight.shape[_axis(module)]) // (int(module.groups) if _axis(module) == 0 else 1)


def _layer(name: str, scores: Tensor, kept: Tensor | None, axis: int, n: int, m: int) -> UnitSet:
    import torch

    from prunebench.units import UnitSet, forced

    ranked = forced(scores, kept)
    groups = ranked.movedim(axis, -1).unflatten(-1, (-1, m))
    lowest = groups.sort(dim=-1, stable=True).indices[..., : m - n]
    low = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, lowest, True)
    removable = low.flatten(-2).movedim(-1, axis).contiguous()

    def expand(keep: Tensor) -> dict[str, Tensor]:
        mask = ~removable
        mask[removable] = keep
        return {name: mask}

    return UnitSet((name,), ranked[removable], 1, expand, scores.numel() * n // m)
