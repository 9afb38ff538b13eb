"""Functional calls as calls of modules, so that the rest of the engine sees modules only.

`F.conv2d(x, self.weight, self.bias, padding=1)` in a model written functionally, and everything in a graph that
torch.compile captured, becomes a call of nn.Conv2d; likewise linear layers, batch norms in evaluation mode,
activations and poolings.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.constants import constants
from prunebench.engine.lifted_layers import arguments, layer, norm2d, norm_input

_DROPOUTS = {
    F.dropout: "training", F.dropout1d: "training", F.dropout2d: "training", F.dropout3d: "training",
    F.alpha_dropout: "training", F.feature_alpha_dropout: "training", torch.dropout: "train",
}  # fmt: skip
_POOL = ("kernel_size", "stride", "padding")
# function or method -> module, and the arguments after the input: the module's constructor gives them the same names
_STATELESS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.relu: (nn.ReLU, ("inplace",)),
    torch.relu: (nn.ReLU, ()),
    "relu": (nn.ReLU, ()),
    F.relu6: (nn.ReLU6, ("inplace",)),
    F.hardtanh: (nn.Hardtanh, ("min_val", "max_val", "inplace")),
    F.hardswish: (nn.Hardswish, ("inplace",)),
    F.hardsigmoid: (nn.Hardsigmoid, ("inplace",)),
    F.silu: (nn.SiLU, ("inplace",)),
    F.gelu: (nn.GELU, ("approximate",)),
    F.leaky_relu: (nn.LeakyReLU, ("negative_slope", "inplace")),
    torch.sigmoid: (nn.Sigmoid, ()),
    "sigmoid": (nn.Sigmoid, ()),
    F.max_pool2d: (nn.MaxPool2d, (*_POOL, "dilation", "ceil_mode", "return_indices")),
    torch.max_pool2d: (nn.MaxPool2d, (*_POOL, "dilation", "ceil_mode")),
    F.avg_pool2d: (nn.AvgPool2d, (*_POOL, "ceil_mode", "count_include_pad", "divisor_override")),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, ("output_size",)),
}
_IN_PLACE = {F.relu_, torch.relu_, "relu_"}
_MAPS = (nn.Conv2d, nn.BatchNorm2d)
_KEEP_RANK = (*{kind for kind, _ in _STATELESS.values()}, nn.Dropout, nn.Identity, nn.ReLU6)
_SUFFIXES = ("_weight", "_weight_orig", "_running_mean", "_parametrizations_weight_original")


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return bool(value) and all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _stateless(node: fx.Node) -> tuple[nn.Module, fx.Node] | None:
    """The module for an activation or pooling with fixed settings, and its input."""
    known = (nn.ReLU, ()) if node.target in _IN_PLACE else _STATELESS.get(node.target)
    a = None if known is None else arguments(node, ("input", *known[1]))
    if known is None or a is None or not isinstance(a.get("input"), fx.Node):
        return None
    x, kind = a.pop("input"), known[0]
    if not all(_plain(v) for v in a.values()) or a.pop("return_indices", False):
        return None
    if node.target in _IN_PLACE:
        a["inplace"] = True
    if kind is nn.Hardtanh and (a.get("min_val", -1.0), a.get("max_val", 1.0)) == (0.0, 6.0):
        return nn.ReLU6(a.get("inplace", False)), x
    return kind(**a), x


def _is_map(traced: fx.GraphModule, node: Any) -> bool:
    """Whether a value surely has four dimensions, from the shapes noted at tracing or from what made it."""
    while isinstance(node, fx.Node):
        for key in ("example_value", "val", "tensor_meta"):
            shape = getattr(node.meta.get(key), "shape", None)
            if shape is not None:
                return len(shape) == 4
        if node.op != "call_module" or not node.args:
            return False
        module = traced.get_submodule(str(node.target))
        if isinstance(module, _MAPS):
            return True
        if not isinstance(module, _KEEP_RANK):
            return False
        node = node.args[0]
    return False


def _name(source: fx.Node, kind: str) -> str:
    """A module's name after where its weight is stored: `features.0.weight` -> `features_0`."""
    while source.op != "get_attr" and source.all_input_nodes:
        source = source.all_input_nodes[-1]
    name = str(source.target).replace(".", "_")
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name if source.op == "get_attr" and name not in ("weight", "running_mean") else f"lifted_{kind}"


def _replace(traced: fx.GraphModule, node: fx.Node, x: fx.Node, module: nn.Module, name: str) -> None:
    stem, number = name, 0
    while hasattr(traced, name):
        number += 1
        name = f"{stem}_{number}"
    traced.add_submodule(name, module.eval())
    with traced.graph.inserting_before(node):
        call = traced.graph.call_module(name, (x,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    traced.graph.erase_node(node)


def _drop(node: fx.Node, training: str) -> None:
    """A dropout in evaluation mode hands on its input."""
    a = arguments(node, ("input", "p", training, "inplace"))
    if a is not None and isinstance(a.get("input"), fx.Node) and a.get(training, True) is False:
        node.replace_all_uses_with(a["input"])
        node.graph.erase_node(node)


def _forget(traced: fx.GraphModule, unused: list[fx.Node]) -> None:
    """Erases constants that nothing uses any more, and the attributes that only they read."""
    gone = set()
    for node in reversed(unused):
        if not node.users:
            if node.op == "get_attr":
                gone.add(str(node.target))
            traced.graph.erase_node(node)
    kept = {str(n.target) for n in traced.graph.nodes if n.op in ("get_attr", "call_module")}
    for target in gone:
        owner, _, name = target.rpartition(".")
        parents = {owner[:i] for i, c in enumerate(owner + ".") if c == "."}
        if target not in kept and not parents & kept:
            delattr(traced.get_submodule(owner), name)


def lift(traced: fx.GraphModule) -> fx.GraphModule:
    """The same GraphModule, changed in place: functional calls of constant weights become calls of modules.

    traced: what fx.symbolic_trace, torch.compile or torch.export's module() gave, for inference. Convolutions, linear
    layers (x @ W too), batch norms in evaluation mode on maps of four dimensions, activations, poolings; dropout in
    evaluation mode goes. Weights may be parameters, buffers, or computed from them (mask * weight, detached), of any
    floating dtype; shapes stay. A call whose weights depend on the input, or that the graph writes to, stays as it is.
    Raises nothing of its own. Source: the calling conventions of torch.nn.functional and of the aten operators.
    """
    values = constants(traced)
    for node in list(traced.graph.nodes):
        if node in values or node.op not in ("call_function", "call_method"):
            continue
        made, plain = layer(node, values), _stateless(node)
        if made is None and _is_map(traced, norm_input(node)):
            made = norm2d(node, values)
        if made is not None:
            name = _name(made.source, type(made.module).__name__.lower())
            _replace(traced, node, made.input, made.module, name)
        elif plain is not None and plain[1] not in values:
            _replace(traced, node, plain[1], plain[0], f"lifted_{type(plain[0]).__name__.lower()}")
        elif node.target in _DROPOUTS:
            _drop(node, _DROPOUTS[node.target])
    _forget(traced, list(values))
    traced.graph.lint()
    traced.recompile()
    return traced
