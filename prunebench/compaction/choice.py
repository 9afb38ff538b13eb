"""Which channels stay: as few as the outputs allow.

A class of channels can go where every layer that reads it reads nothing, or a constant that fits in elsewhere:

- zero: nothing has to fit in;
- any other constant read by a linear layer, or by a convolution without padding: it joins the reader's bias;
- one read by a convolution that pads with zeros, whose contribution is another at the border and so is no bias: it
  joins another constant channel of the same reader. All of them become one channel r, which stays, with the weights
  sum_c (k_c / k_r) W[:, c]: exact at the border too, because the convolution is linear in its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench.compaction.layers import Layer

# The constant that takes the others' part is at least this share of the largest of them, since it divides them.
STEADY = 1e-2


@dataclass
class Reading:
    """How one layer reads its input channels: reads (filters, channels); constant: NaN where there is none."""

    layer: Layer
    reads: Tensor
    constant: Tensor

    @property
    def harmless(self) -> Tensor:
        """bool (channels,): those that can go without another of them staying."""
        return (self.constant == 0) | (~self.constant.isnan() & self.layer.exact)

    @property
    def joins(self) -> Tensor:
        """bool (channels,): constants that can go where another one of the same group stays."""
        return ~self.constant.isnan() & (self.constant != 0) & (not self.layer.exact)

    def keepers(self, kept: Tensor) -> Tensor:
        """int64 (groups,): for each group the constant channel that takes the others' part, -1 for none."""
        size = self.constant.abs().masked_fill(~(self.joins & kept[self.layer.columns]), -1.0)
        best = size.view(self.layer.groups, -1).max(1)
        first = torch.arange(self.layer.groups) * (len(size) // self.layer.groups)
        return torch.where(best.values > 0, best.indices + first, -1)


def reading(layer: Layer) -> Reading:
    """How a layer reads its inputs; called several times, only what is zero in every call counts as constant."""
    constant = layer.inputs[0]
    if len(layer.inputs) > 1:
        zero = torch.stack([k == 0 for k in layer.inputs]).all(0)
        constant = torch.where(zero, 0.0, torch.full_like(constant, float("nan")))
    reads = layer.reads
    if layer.depthwise:
        # Its own filter goes with the channel: whoever reads that filter decides.
        reads = torch.zeros_like(reads)
    return Reading(layer, reads, constant)


def kept_channels(readings: Sequence[Reading], roots: Tensor, pinned: Tensor) -> Tensor:
    """bool (channels,): the least that has to stay, given what is pinned; every layer keeps a filter and a channel.

    roots: each channel's class; `pinned` is bool (channels,).
    """
    kept = pinned.clone()

    def needed(r: Reading) -> None:
        _keep(kept, roots, r.layer.columns[r.reads[kept[r.layer.rows]].any(0) & ~r.harmless & ~r.joins])

    def one_constant(r: Reading) -> None:
        _keep_one_constant(r, kept, roots)

    def alike(r: Reading) -> None:
        if r.layer.groups > 1 and not r.layer.depthwise:
            _keep_alike(r.layer, kept, roots)

    def one(r: Reading) -> None:
        for ids in (r.layer.rows, r.layer.columns):
            if not bool(kept[ids].any()):
                _keep(kept, roots, ids[:1])

    # What is kept at will comes after all that must be, since that may do; and readers come before those they read.
    rules = [needed, one_constant, alike, one]
    while rules:
        before = int(kept.sum())
        for r in reversed(readings):
            rules[0](r)
        rules = rules[1:] if int(kept.sum()) == before else [needed, one_constant, alike, one]
    return kept


def _keep(kept: Tensor, roots: Tensor, ids: Tensor) -> None:
    if not bool(kept[ids].all()):
        kept |= torch.isin(roots, roots[ids])


def _keep_one_constant(r: Reading, kept: Tensor, roots: Tensor) -> None:
    leaving = r.reads[kept[r.layer.rows]].any(0) & r.joins & ~kept[r.layer.columns]
    if not bool(leaving.any()):
        return
    size = r.constant.abs().masked_fill(~leaving, -1.0).view(r.layer.groups, -1)
    for group, keeper in enumerate(r.keepers(kept).tolist()):
        largest = size[group].max()
        if largest > 0 and (keeper < 0 or r.constant[keeper].abs() < STEADY * largest):
            best = group * size.shape[1] + int(size[group].argmax())
            _keep(kept, roots, r.layer.columns[best : best + 1])


def _keep_alike(layer: Layer, kept: Tensor, roots: Tensor) -> None:
    """Groups of a convolution stay of one size: those that lose less decide, but for groups that go altogether."""
    rows, columns = layer.rows.view(layer.groups, -1), layer.columns.view(layer.groups, -1)
    alive = kept[rows].any(1) | kept[columns].any(1)
    if not bool(alive.any()):
        return
    for ids in (rows, columns):
        most = max(1, int(kept[ids][alive].sum(1).max()))
        for row in ids[alive]:
            missing = most - int(kept[row].sum())
            if missing > 0:
                _keep(kept, roots, row[~kept[row]][:missing])
