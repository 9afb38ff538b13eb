"""Modules for the functional calls that carry weights: convolution, linear layer, batch norm."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

_aten = torch.ops.aten
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_LINEAR = ("input", "weight", "bias")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_TORCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")

_CONVS = {torch.conv2d, _aten.conv2d.default, _aten.conv2d.padding}
_LINEARS = {F.linear, _aten.linear.default}
_PRODUCTS = {operator.matmul, torch.matmul, torch.mm, "matmul", "mm", "__matmul__"}
_NORMS: dict[Any, tuple[str, ...]] = {
    F.batch_norm: _NORM,
    torch.batch_norm: _TORCH_NORM,
    _aten.batch_norm.default: _TORCH_NORM,
}

Values = dict[fx.Node, torch.Tensor]


class Layer(NamedTuple):
    """A module that computes what a call computed from `input`, and the node its weight came from."""

    module: nn.Module
    input: fx.Node
    source: fx.Node


def weighted(traced: fx.GraphModule) -> bool:
    """Whether a graph holds a convolution or linear layer in any form, so that an engine could gain something."""
    calls = _CONVS | _LINEARS | _PRODUCTS | {torch.addmm}
    for node in traced.graph.nodes:
        if node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), (nn.Conv2d, nn.Linear)):
            return True
        if node.op in ("call_function", "call_method") and node.target in calls:
            return True
    return False


def arguments(node: fx.Node, names: tuple[str, ...]) -> dict[str, Any] | None:
    """A call's arguments by name, or None if it has others."""
    if len(node.args) > len(names) or set(node.kwargs) - set(names):
        return None
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _pair(value: Any, least: int) -> tuple[int, int] | None:
    """An int, or one or two of them, as two; None for anything else."""
    if type(value) is int:
        value = (value,)
    if not isinstance(value, (tuple, list)) or not all(type(v) is int and v >= least for v in value):
        return None
    return (int(value[0]), int(value[-1])) if len(value) in (1, 2) else None


def _parameter(value: torch.Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), requires_grad=False)


def _tensor(values: Values, node: Any, ndim: int) -> torch.Tensor | None:
    found = values.get(node) if isinstance(node, fx.Node) else None
    return found if found is not None and found.dim() == ndim and found.is_floating_point() else None


def _conv(node: fx.Node, values: Values) -> Layer | None:
    a = arguments(node, _CONV)
    if a is None or not isinstance(a.get("input"), fx.Node):
        return None
    weight, bias = _tensor(values, a.get("weight"), 4), _tensor(values, a.get("bias"), 1)
    if weight is None or (bias is None and a.get("bias") is not None):
        return None
    stride, dilation = _pair(a.get("stride", 1), 1), _pair(a.get("dilation", 1), 1)
    padding, groups = a.get("padding", 0), a.get("groups", 1)
    if not isinstance(padding, str):
        padding = _pair(padding, 0)
    elif padding not in ("same", "valid") or (padding == "same" and stride != (1, 1)):
        return None
    if stride is None or dilation is None or padding is None or type(groups) is not int or groups < 1:
        return None
    rows, columns, kh, kw = weight.shape
    if weight.numel() == 0 or rows % groups or (bias is not None and bias.shape[0] != rows):
        return None
    conv = nn.Conv2d(
        columns * groups, rows, (kh, kw), stride, padding, dilation, groups, bias is not None, device="meta"
    )
    conv.weight = _parameter(weight)
    conv.bias = None if bias is None else _parameter(bias)
    return Layer(conv, a["input"], a["weight"])


def _linear_of(x: Any, weight: torch.Tensor | None, bias: Any, source: Any, values: Values) -> Layer | None:
    """weight: (out, in)."""
    if weight is None or weight.numel() == 0 or not isinstance(x, fx.Node):
        return None
    held = _tensor(values, bias, 1)
    if held is None if bias is not None else False:
        return None
    if held is not None and held.shape[0] != weight.shape[0]:
        return None
    linear = nn.Linear(weight.shape[1], weight.shape[0], held is not None, device="meta")
    linear.weight = _parameter(weight)
    if held is not None:
        linear.bias = _parameter(held)
    return Layer(linear, x, source)


def _linear(node: fx.Node, values: Values) -> Layer | None:
    """F.linear, x @ W and addmm(b, x, W), the last two with W of (in, out)."""
    if node.target in _LINEARS:
        a = arguments(node, _LINEAR) or {}
        return _linear_of(a.get("input"), _tensor(values, a.get("weight"), 2), a.get("bias"), a.get("weight"), values)
    if len(node.args) != (3 if node.target is torch.addmm else 2) or node.kwargs:
        return None
    *bias, x, source = node.args
    weight = _tensor(values, source, 2)
    weight = None if weight is None else weight.t().contiguous()
    return _linear_of(x, weight, bias[0] if bias else None, source, values)


def norm_input(node: fx.Node) -> Any:
    """The input of a functional batch norm, None for any other node."""
    names = _NORMS.get(node.target) if node.op == "call_function" else None
    return None if names is None else (arguments(node, names) or {}).get("input")


def norm2d(node: fx.Node, values: Values) -> Layer | None:
    """nn.BatchNorm2d for a functional batch norm in evaluation mode; the caller knows that the input is a map."""
    a = arguments(node, _NORMS[node.target])
    if a is None or a.get("training", False) is not False:
        return None
    mean, var = _tensor(values, a.get("running_mean"), 1), _tensor(values, a.get("running_var"), 1)
    weight, bias = _tensor(values, a.get("weight"), 1), _tensor(values, a.get("bias"), 1)
    eps = a.get("eps", 1e-5)
    if mean is None or var is None or mean.shape != var.shape or not isinstance(eps, float):
        return None
    if (weight is None) != (a.get("weight") is None) or (bias is None) != (a.get("bias") is None):
        return None
    if any(t is not None and t.shape != mean.shape for t in (weight, bias)):
        return None
    norm = nn.BatchNorm2d(mean.shape[0], eps, device=mean.device)
    norm.running_mean, norm.running_var = mean.detach(), var.detach()
    one = torch.ones_like(mean) if weight is None else weight
    zero = torch.zeros_like(mean) if bias is None else bias
    norm.weight, norm.bias = _parameter(one), _parameter(zero)
    return Layer(norm, a["input"], a["running_mean"])


def layer(node: fx.Node, values: Values) -> Layer | None:
    """The module for a functional convolution or linear layer of constant weights, or None.

    values: the graph's constants. Weights keep shape and dtype; an nn.Parameter stays the same object.
    """
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target in _CONVS:
        found = _conv(node, values)
    elif node.target in _LINEARS or node.target in _PRODUCTS or node.target is torch.addmm:
        found = _linear(node, values)
    else:
        return None
    return None if found is None or found.input in values else found
