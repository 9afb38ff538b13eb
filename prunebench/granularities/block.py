"""Blocks: small rectangles of a weight matrix go together (Narang et al. 2017; Gray et al. 2017), 4×1 by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.granularities import Scored
from prunebench.registry import granularity

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.units import UnitSet


LARGEST = 1024  # weights of a block: layers smaller than a block are filled up, and memory with them


def _check(rows: int, cols: int) -> None:
    if not (isinstance(rows, int) and isinstance(cols, int) and rows >= 1 and cols >= 1 and rows * cols <= LARGEST):
        raise ValueError(
            f"give whole numbers of at least 1, their product at most {LARGEST}, for example block:rows=4:cols=1"
        )


@granularity("block", check=_check)
def block(scored: Scored, rows: int = 4, cols: int = 1) -> list[UnitSet]:
    """One set per layer; a unit is rows × cols weights: output channels × input channels, at one tap of the kernel.

    Blocks start at channel 0; the last ones of a layer are smaller where rows or cols don't divide it, and weigh what
    they hold. A block's score is its weights' by the criterion's own reduction, as a filter's is; a smaller block is
    filled up with its mean first, so that none goes for being small. Units lie by output, input, then tap.
    """
    return [_layer(scored, name, rows, cols) for name in scored.scores]


def _layer(scored: Scored, name: str, rows: int, cols: int) -> UnitSet:
    from prunebench.units import UnitSet, forced, precise

    # A transposed convolution's weight is (in, out/groups, …), every other one (out, in/groups, …).
    swap = bool(getattr(scored.modules[name], "transposed", False))
    scores, kept = precise(scored.scores[name]), scored.kept(name)
    grid = _Grid(tuple(scores.shape), swap, rows, cols)
    values, inside = grid.blocks(scores), grid.blocks(scores.new_ones(scores.shape))
    sizes = inside.sum(-1)
    if grid.ragged:
        values = values + (1 - inside) * (values.sum(-1) / sizes)[:, None]
    alive = None if kept is None else grid.blocks(kept.float()).any(-1)
    cost = sizes.long() if grid.ragged else rows * cols
    return UnitSet((name,), forced(scored.reduce(values), alive), cost, lambda keep: {name: grid.weights(keep)})


class _Grid:
    """A weight as a grid of blocks: (out blocks, in blocks, taps), each of rows × cols, filled up with zeros."""

    def __init__(self, shape: tuple[int, ...], swap: bool, rows: int, cols: int) -> None:
        self.shape, self.swap = shape, swap
        self.out, self.inputs = (shape[1], shape[0]) if swap else shape[:2]
        self.rows, self.cols = rows, cols
        self.ragged = bool(self.out % rows or self.inputs % cols)

    def blocks(self, weight: Tensor) -> Tensor:
        """(units, weights of a block) of a weight-shaped tensor."""
        import torch.nn.functional as F

        matrix = (weight.transpose(0, 1) if self.swap else weight).reshape(self.out, self.inputs, -1)
        padded = F.pad(matrix, (0, 0, 0, -self.inputs % self.cols, 0, -self.out % self.rows))
        split = padded.unflatten(1, (-1, self.cols)).unflatten(0, (-1, self.rows))
        return split.permute(0, 2, 4, 1, 3).flatten(3).flatten(0, 2)

    def weights(self, keep: Tensor) -> Tensor:
        """A mask of the weight's shape from a bool (units,)."""
        ups, across = -(-self.out // self.rows), -(-self.inputs // self.cols)
        grid = keep.view(ups, across, -1).repeat_interleave(self.rows, 0).repeat_interleave(self.cols, 1)
        matrix = grid[: self.out, : self.inputs]
        shape = (self.out, self.inputs, *self.shape[2:])
        return (matrix.reshape(shape).transpose(0, 1) if self.swap else matrix.reshape(shape)).contiguous()
