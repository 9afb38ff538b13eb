"""Cutting a model's layers down to the channels that stay, with what leaving constants contributed put elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.compaction.choice import Reading
from prunebench.compaction.layers import Norm


@torch.no_grad()
def cut(model: nn.Module, readings: Sequence[Reading], norms: Sequence[Norm], kept: Tensor) -> None:
    """Replace, in place, the parameters of the layers named; kept: bool by channel."""
    for reading in readings:
        _cut_layer(model.get_submodule(reading.layer.name), reading, kept)
    for norm in norms:
        _cut_norm(model.get_submodule(norm.name), kept[norm.columns])


def _cut_layer(module: Any, reading: Reading, kept: Tensor) -> None:
    layer = reading.layer
    rows, columns = kept[layer.rows], kept[layer.columns]
    if bool(rows.all()) and bool(columns.all()):
        return
    weight, bias = _absorbed(reading, kept)
    taps, per_group = weight.shape[2], weight.shape[1]
    if layer.depthwise:
        weight, groups = weight[rows], int(columns.sum())
    else:
        # (groups, filters, channels, taps): a group goes as a whole, or keeps as many as the others.
        weight = weight.view(layer.groups, -1, per_group, taps)
        by_group = rows.view(layer.groups, -1)
        alive = by_group.any(1)
        parts = [
            weight[g][by_group[g]][:, columns.view(layer.groups, -1)[g]] for g in alive.nonzero().flatten().tolist()
        ]
        weight, groups = torch.cat(parts), len(parts)
    linear = isinstance(module, nn.Linear)
    shaped = weight[:, :, 0] if linear else weight.view(*weight.shape[:2], *module.kernel_size)
    shaped = shaped.transpose(0, 1) if getattr(module, "transposed", False) else shaped
    module.weight = _like(module.weight, shaped)
    if bias is not None:
        module.bias = _like(module.weight if module.bias is None else module.bias, bias[rows])
    if linear:
        module.out_features, module.in_features = int(rows.sum()), int(columns.sum())
    else:
        module.out_channels, module.in_channels, module.groups = int(rows.sum()), int(columns.sum()), groups


def _absorbed(reading: Reading, kept: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight (float64, uncut) and bias after what leaving constant channels contributed was added to them."""
    layer, weight = reading.layer, reading.layer.weight().clone()
    bias = None if layer.module.bias is None else layer.module.bias.detach().double().cpu()
    leaving = ~kept[layer.columns] & ~reading.constant.isnan() & (reading.constant != 0) & reading.reads.any(0)
    if layer.depthwise or not bool(leaving.any()):
        return weight, bias
    per_group, filters = weight.shape[1], len(weight) // layer.groups
    keepers = reading.keepers(kept).tolist()
    for g in range(layer.groups):
        mine, own = slice(g * filters, (g + 1) * filters), slice(g * per_group, (g + 1) * per_group)
        factors = torch.where(leaving[own], reading.constant[own], 0.0)
        contribution = torch.einsum("oct,c->ot", weight[mine], factors)
        if layer.exact:
            bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.clone()
            bias[mine] += contribution.sum(1)
        elif keepers[g] >= 0:
            weight[mine, keepers[g] - own.start] += contribution / reading.constant[keepers[g]]
    return weight, bias


def _cut_norm(module: Any, columns: Tensor) -> None:
    if bool(columns.all()):
        return
    module.num_features = int(columns.sum())
    for name in ("weight", "bias"):
        parameter = getattr(module, name)
        if parameter is not None:
            setattr(module, name, _like(parameter, parameter.detach()[columns.to(parameter.device)]))
    for name in ("running_mean", "running_var"):
        buffer = getattr(module, name)
        if buffer is not None:
            setattr(module, name, buffer[columns.to(buffer.device)].clone())


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.to(old.device, old.dtype).contiguous(), requires_grad=old.requires_grad)
