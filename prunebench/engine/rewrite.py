"""Graph rewrites around the sparse layers: residual sums into the epilogue, max pooling that keeps the layout."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.layers import SparseConv2d

_RELU_FUNCTIONS = {F.relu, F.relu_, torch.relu, torch.relu_}
_RELU_METHODS = {"relu", "relu_"}
_ADD_FUNCTIONS = {operator.add, operator.iadd, torch.add}
_ADD_METHODS = {"add", "add_"}
_MEAN_PIXELS = 1024


def relu_after(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The ReLU that is the only user of the node's result, or None."""
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    if user.op == "call_module":
        module = traced.get_submodule(str(user.target))
        plain = type(module) is nn.ReLU and not (module._forward_hooks or module._forward_pre_hooks)
        return user if plain else None
    found = (user.op == "call_function" and user.target in _RELU_FUNCTIONS) or (
        user.op == "call_method" and user.target in _RELU_METHODS
    )
    return user if found and user.args and user.args[0] is node else None


def _is_add(node: fx.Node) -> bool:
    known = (node.op == "call_function" and node.target in _ADD_FUNCTIONS) or (
        node.op == "call_method" and node.target in _ADD_METHODS
    )
    return known and len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)


def fuse_sums(traced: fx.GraphModule) -> None:
    """A sum with a sparse convolution's result, and the ReLU after it, into that convolution.

    The convolution taken is the later of the two terms, so nothing is reordered.
    """
    nodes = list(traced.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    calls: dict[Any, int] = {}
    for node in nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in nodes:
        if not _is_add(node) or node.args[0] is node.args[1]:
            continue
        conv, other = sorted(node.args, key=order.__getitem__, reverse=True)
        if conv.op != "call_module" or calls[conv.target] != 1 or len(conv.users) != 1 or len(conv.args) != 1:
            continue
        layer = traced.get_submodule(str(conv.target))
        if type(layer) is not SparseConv2d or layer.relu:
            continue
        in_place = node.target in (operator.iadd, "add_")
        if in_place and node.args[0] is other and len(other.users) != 1:
            continue  # somebody else would have seen the sum
        conv.args = (conv.args[0], other)
        relu = relu_after(traced, node)
        layer.relu = relu is not None
        for gone in [node] if relu is None else [node, relu]:
            gone.replace_all_uses_with(conv, delete_user_cb=partial(operator.is_not, conv))
        for gone in [relu, node]:
            if gone is not None:
                traced.graph.erase_node(gone)
    traced.graph.lint()
    traced.recompile()


class KeepLayoutMaxPool2d(nn.Module):
    """Max pooling without padding; images innermost in memory stay so (torch would convert to and fro)."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) or (C, H, W) float32 in and out."""
        (kh, kw), (sh, sw) = self.kernel, self.stride
        h, w = x.shape[-2:]
        if x.dim() != 4 or x.stride(0) != 1 or x.shape[0] == 1 or h < kh or w < kw:
            return F.max_pool2d(x, self.kernel, self.stride)
        oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
        out: torch.Tensor | None = None
        for ky in range(kh):
            for kx in range(kw):
                tap = x[:, :, ky : ky + (oh - 1) * sh + 1 : sh, kx : kx + (ow - 1) * sw + 1 : sw]
                if out is None:
                    first = tap
                    out = x.new_empty((x.shape[1], oh, ow, x.shape[0])).permute(3, 0, 1, 2)
                    if kh * kw == 1:
                        out.copy_(tap)
                elif (ky == 0 and kx == 1) or (kw == 1 and ky == 1):
                    torch.maximum(first, tap, out=out)
                else:
                    torch.maximum(out, tap, out=out)
        assert out is not None
        return out


class GlobalMean(nn.Module):
    """Mean over a map, as nn.AdaptiveAvgPool2d(1) or x.mean((2, 3)); small ones on this thread.

    torch would wake its own threads for a few microseconds of work, and these then spin on the engine's cores. numpy
    adds one number after the other, which costs digits: rows and columns one by one, and large maps are torch's.
    """

    def __init__(self, keepdim: bool):
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 in, (N, C, 1, 1) or (N, C) out."""
        pixels = x.shape[-2] * x.shape[-1]
        here = x.dim() == 4 and x.dtype == torch.float32 and x.shape[0] > 1 and 0 < pixels <= _MEAN_PIXELS
        if not here or x.numel() > 1 << 20:
            return x.mean((-2, -1) if self.keepdim else (2, 3), keepdim=self.keepdim)
        mean = torch.from_numpy(x.numpy().mean(axis=2).mean(axis=2))
        return mean[:, :, None, None] if self.keepdim else mean


def _mean_of(traced: fx.GraphModule, node: fx.Node) -> GlobalMean | None:
    """The mean for a node that averages over the whole map, or None."""
    rest, options = node.args[1:], dict(node.kwargs)
    if node.op == "call_module":
        m = traced.get_submodule(str(node.target))
        plain = type(m) is nn.AdaptiveAvgPool2d and not (m._forward_hooks or m._forward_pre_hooks)
        return GlobalMean(True) if plain and _pair(m.output_size) == (1, 1) else None
    if node.op == "call_function" and node.target is F.adaptive_avg_pool2d:
        size = rest[0] if rest else options.get("output_size")
        return GlobalMean(True) if _pair(size) == (1, 1) else None
    mean = node.op == "call_method" and node.target == "mean" and len(rest) <= 1
    if mean and not set(options) - {"dim", "keepdim"} and _pair(rest[0] if rest else options.get("dim")) == (2, 3):
        return GlobalMean(bool(options.get("keepdim", False)))
    return None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return int(value[0]), int(value[1])
    return None


def _pool_of(traced: fx.GraphModule, node: fx.Node) -> KeepLayoutMaxPool2d | None:
    """The layout-keeping pool for a node that is a plain max pooling, or None."""
    if node.op == "call_module":
        m = traced.get_submodule(str(node.target))
        if type(m) is not nn.MaxPool2d or m._forward_hooks or m._forward_pre_hooks or m.return_indices:
            return None
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        options: dict[str, Any] = {name: getattr(m, name) for name in names}
    elif node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        options = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
        if options.get("return_indices"):
            return None
    else:
        return None
    kernel = _pair(options.get("kernel_size"))
    stride = kernel if options.get("stride") in (None, ()) else _pair(options["stride"])
    plain = _pair(options.get("padding", 0)) == (0, 0) and _pair(options.get("dilation", 1)) == (1, 1)
    if kernel is None or stride is None or not plain or options.get("ceil_mode", False) or max(kernel) > 3:
        return None
    return KeepLayoutMaxPool2d(kernel, stride)


def keep_layout_in_pools(traced: fx.GraphModule) -> None:
    """Plain poolings by ones that keep the memory layout of the sparse layers and wake no threads of torch's."""
    for i, node in enumerate(list(traced.graph.nodes)):
        pool = _pool_of(traced, node) or _mean_of(traced, node)
        if pool is None or not node.args:
            continue
        name = f"prunebench_pool_{i}"
        traced.add_submodule(name, pool)
        with traced.graph.inserting_before(node):
            new = traced.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
