"""Graph work on a traced copy of the model: fold batch norms, fuse ReLUs, put the sparse layers in."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunebench.engine.layers import SparseConv2d, SparseLayer, SparseLinear
from prunebench.engine.rewrite import relu_after

_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
_SMALL = 32  # products per output: 3 x 3 on RGB has 27, a depthwise 5 x 5 has 25; see docs/engine-notes.md
# containers whose children may be replaced when the model can't be traced: others may read their children's weights
_PLAIN = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Affine(nn.Module):
    """A batch norm that nothing before it could take in: x * scale + shift, one pass, any memory layout."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.register_buffer("scale", scale.detach().reshape(-1, 1, 1))
        self.register_buffer("shift", shift.detach().reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) or (C, H, W) float32 in and out."""
        return torch.addcmul(self.shift, x, self.scale)  # type: ignore[arg-type]


def hooked(module: nn.Module) -> bool:
    """Whether replacing the module would lose somebody's hook."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def eligible(module: nn.Module) -> bool:
    """A plain Conv2d or Linear (a subclass may compute something else) with float32 weights and no hooks."""
    return type(module) in (nn.Conv2d, nn.Linear) and module.weight.dtype == torch.float32 and not hooked(module)


def sparsity_of(weight: torch.Tensor) -> float:
    """Share of zeros, 0 for an empty tensor."""
    return 1.0 - int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 0.0


def sparse_enough(module: nn.Module, sparse_from: float) -> bool:
    """Whether an eligible module has at least the share `sparse_from` of zeros."""
    return eligible(module) and sparsity_of(module.weight) >= sparse_from  # type: ignore[arg-type]


def small(module: nn.Module) -> bool:
    """A convolution of so few terms that running it here, dense, beats a conversion of its output's layout.

    It also keeps torch's threads from spinning on the cores that the engine's own threads are about to use.
    """
    return eligible(module) and isinstance(module, nn.Conv2d) and module.weight[0].numel() <= _SMALL


def sparse_layer(module: nn.Module, sparse_from: float, relu: bool, threads: int) -> SparseLayer | None:
    """The sparse layer for an eligible module whose sparsity is at least `sparse_from`, else None."""
    if not sparse_enough(module, sparse_from):
        return None
    if isinstance(module, nn.Conv2d):
        return SparseConv2d(module, relu, threads)
    assert isinstance(module, nn.Linear)
    return SparseLinear(module, relu, threads)


class _Calls:
    """Which node calls which module, and which modules the graph also reads by attribute."""

    def __init__(self, traced: fx.GraphModule):
        self.modules = dict(traced.named_modules())
        nodes = list(traced.graph.nodes)
        self.count = Counter(n.target for n in nodes if n.op == "call_module")
        self.read = [str(n.target) for n in nodes if n.op == "get_attr"]

    def module(self, node: Any) -> nn.Module | None:
        """The module a node calls, when that is the only use of it."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self.count[node.target] != 1:
            return None
        return None if self.is_read(str(node.target)) else self.modules[str(node.target)]

    def is_read(self, target: str) -> bool:
        """Whether the graph reads the module's parameters itself."""
        return any(name == target or name.startswith(target + ".") for name in self.read)


def _set(traced: fx.GraphModule, target: str, module: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(traced.get_submodule(parent), name, module)


def fold_norms(traced: fx.GraphModule) -> None:
    """Batch norms into the convolution before them; a lone BatchNorm2d becomes one multiply-add."""
    calls = _Calls(traced)
    for node in list(traced.graph.nodes):
        norm = calls.module(node)
        if type(norm) not in _NORMS or hooked(norm) or norm.running_var is None:  # type: ignore[union-attr,arg-type]
            continue
        before = node.args[0] if node.args else None
        conv = calls.module(before)
        pair = type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and not hooked(conv)
        if isinstance(before, fx.Node) and isinstance(conv, nn.Conv2d) and pair and len(before.users) == 1:
            _set(traced, str(before.target), fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type]
            calls.modules[str(before.target)] = traced.get_submodule(str(before.target))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif type(norm) is nn.BatchNorm2d:
            _set(traced, str(node.target), Affine(norm))
    traced.graph.lint()
    traced.recompile()


def insert_sparse(traced: fx.GraphModule, sparse_from: float, threads: int) -> None:
    """Sparse layers in place of the sparse Conv2d and Linear modules, each with the ReLU that follows it."""
    calls = _Calls(traced)
    company = any(sparse_enough(m, sparse_from) for m in traced.modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or calls.is_read(str(node.target)):
            continue
        module = traced.get_submodule(str(node.target))
        if isinstance(module, SparseLayer):  # a module called twice
            continue
        relu = relu_after(traced, node) if calls.count[node.target] == 1 else None
        layer = sparse_layer(module, 0.0 if company and small(module) else sparse_from, relu is not None, threads)
        if layer is None:
            continue
        _set(traced, str(node.target), layer)
        if relu is not None:
            relu.replace_all_uses_with(node)
            traced.graph.erase_node(relu)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()


def swap_modules(model: nn.Module, sparse_from: float, threads: int) -> None:
    """The same without a graph, for models that can't be traced: replaces modules in place, fuses nothing."""
    made: dict[int, SparseLayer] = {}
    for parent in list(model.modules()):
        if type(parent).__module__.startswith("torch.nn.") and not isinstance(parent, _PLAIN):
            continue
        for name, child in list(parent.named_children()):
            layer = made.get(id(child)) or sparse_layer(child, sparse_from, False, threads)
            if layer is not None:
                made[id(child)] = layer
                setattr(parent, name, layer)
