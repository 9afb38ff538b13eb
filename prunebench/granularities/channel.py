"""Channel granularity: all weights that read one input channel go together (He et al. 2017, "Channel pruning").

Where several layers read the same channel (after a split, a residual add or a concatenation) their weights for it are
one unit: a channel is gone only when no one reads it any more, and then so can be the filter that makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunebench.errors import UsageError
from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunebench.granularities.readers import Read
    from prunebench.units import UnitSet


@granularity("channel")
def channel(scored: Scored) -> list[UnitSet]:
    """One set per group of layers that read the same channels, one unit per channel; its score is the readers' sum.

    The weight of a depthwise convolution for a channel is its whole filter; that of a convolution in groups lies in
    the channel's group. A linear layer after flattening reads a channel with as many columns as its map has pixels.
    Never removed: the model's input channels, so the first layer stays whole, and channels that something else reads
    (the output, an excluded layer, an operation not known). The sparsity asked for is that of the weights that can go.
    Raises UsageError where no channel can be, as in a model that torch.fx can't trace.
    """
    from prunebench.granularities.readers import tied_channels  # here: a grid is checked and collected without torch

    sets = [_set(scored, count, reads) for count, reads in tied_channels(scored.model, scored.modules) if count > 1]
    if not sets:
        raise UsageError(
            f"{type(scored.model).__name__} has no channel that could be removed; use granularity='filter' or 'weight'"
        )
    return sets


def _set(scored: Scored, count: int, reads: Sequence[Read]) -> UnitSet:
    import torch

    from prunebench.units import UnitSet, forced, precise

    names = tuple(dict.fromkeys(r.name for r in reads))
    modules = {name: scored.modules[name] for name in names}
    shapes = {name: scored.scores[name].shape for name in names}

    def columns(read: Read, weight: Tensor) -> Tensor:
        # (count, weights): what one layer reads each channel of the group with
        wide = _by_channel(weight, modules[read.name])
        return wide[read.start : read.start + count * read.width].reshape(count, -1)

    parts = [columns(r, precise(scored.scores[r.name])) for r in reads]
    masks = [mask for r in reads if (mask := scored.kept(r.name)) is not None]
    kept = torch.stack([columns(r, m).any(1) for r, m in zip(reads, masks, strict=True)]).any(0) if masks else None

    def expand(keep: Tensor) -> dict[str, Tensor]:
        found = {}
        for name in names:
            whole = torch.ones(_inputs(modules[name]), dtype=torch.bool, device=keep.device)
            for r in reads:
                if r.name == name:
                    whole[r.start : r.start + count * r.width] = keep.repeat_interleave(r.width)
            found[name] = _spread(whole, shapes[name], modules[name])
        return found

    total = torch.stack([scored.reduce(p) for p in parts]).sum(0)
    return UnitSet(names, forced(total, kept), sum(p.shape[1] for p in parts), expand)


def _inputs(module: Any) -> int:
    return int(module.in_features if hasattr(module, "in_features") else module.in_channels)


def _by_channel(weight: Tensor, module: Any) -> Tensor:
    """(input channels, weights) of a layer's weight."""
    if getattr(module, "transposed", False):
        return weight.flatten(1)
    groups = getattr(module, "groups", 1)
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1).transpose(1, 2).flatten(0, 1).flatten(1)


def _spread(keep: Tensor, shape: torch.Size, module: Any) -> Tensor:
    """The mask of a weight's shape that keeps these of its input channels, bool (input channels,)."""
    if getattr(module, "transposed", False):
        rows = keep[:, None].expand(shape[:2])
    else:
        groups = getattr(module, "groups", 1)
        rows = keep.view(groups, -1).repeat_interleave(shape[0] // groups, 0)
    return rows.reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape).contiguous()
