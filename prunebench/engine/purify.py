"""Takes in-place operations out of a traced model, so that nothing depends on the order in which they run."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

_PURE_FUNCTIONS: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, F.relu_: F.relu, torch.relu_: torch.relu,
}  # fmt: skip
_PURE_METHODS = {"add_", "sub_", "mul_", "div_", "relu_", "sigmoid_", "tanh_", "clamp_", "neg_", "exp_"}
# where a function's `inplace`, its last argument, is when it comes without its name
_INPLACE_AT: dict[Any, int] = {
    F.relu: 1, F.relu6: 1, F.hardswish: 1, F.silu: 1, F.hardsigmoid: 1, F.mish: 1, F.selu: 1, F.elu: 2, F.celu: 2,
    F.leaky_relu: 2, F.hardtanh: 3, F.threshold: 3, F.rrelu: 4, F.dropout: 3, F.alpha_dropout: 3, F.dropout1d: 3,
    F.dropout2d: 3, F.dropout3d: 3, F.feature_alpha_dropout: 3,
}  # fmt: skip

# calls whose result may share memory with their first argument
_VIEWS = {
    "view", "reshape", "transpose", "permute", "chunk", "split", "narrow", "squeeze", "unsqueeze", "expand", "flatten",
    "contiguous", "detach", "t", "getitem", "unflatten", "select", "unbind", "swapaxes", "movedim", "view_as", "to",
    "expand_as", "float", "dropout", "diagonal", "tensor_split", "hsplit", "vsplit", "alias", "getattr", "unfold",
    "stochastic_depth", "Identity", "Dropout", "Dropout2d", "Flatten", "Unflatten", "PixelShuffle", "channel_shuffle",
}  # fmt: skip


def _shares(traced: fx.GraphModule) -> dict[fx.Node, set[fx.Node]]:
    """For every node all that may be other views of its memory, itself included."""
    groups: dict[fx.Node, set[fx.Node]] = {}
    for node in traced.graph.nodes:
        groups[node] = {node}
        name = str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", "")
        if node.op == "call_module":
            name = type(traced.get_submodule(str(node.target))).__name__
        first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if first is not None and name in _VIEWS:
            groups[first] |= groups[node]
            for member in groups[first]:
                groups[member] = groups[first]
    return groups


def purify(traced: fx.GraphModule) -> bool:
    """Replaces the in-place operations it knows; True when none is left.

    Whoever reads a tensor after it was changed in place reads the new tensor from then on. ValueError: somebody reads
    another view of a changed tensor, which only torch can follow.
    """
    shares = _shares(traced)
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    clean = True
    for node in list(traced.graph.nodes):
        changed = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if not getattr(module, "inplace", False):
                continue
            module.inplace = False  # type: ignore[assignment]
        elif node.op == "call_function" and node.target in _PURE_FUNCTIONS:
            node.target = _PURE_FUNCTIONS[node.target]
        elif node.op == "call_method" and node.target in _PURE_METHODS:
            node.target = node.target[:-1]
        elif node.op == "call_function" and node.kwargs.get("inplace", False):
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_function" and (at := _INPLACE_AT.get(node.target, 0)) and node.args[at:] == (True,):
            node.args = node.args[:at]
        elif _mutates(node):
            clean = False
            continue
        else:
            continue
        if changed is not None:
            for view in shares[changed] - {changed, node}:
                if any(order[u] > order[node] for u in view.users):
                    raise ValueError(f"{changed} is changed in place while {view} may be a view of it")
            for user in [u for u in changed.users if order[u] > order[node]]:
                user.replace_input_with(changed, node)
    traced.recompile()
    return clean


def written(traced: fx.GraphModule) -> set[fx.Node]:
    """The nodes whose results a call left in place writes to, or may share memory with what one writes to."""
    shares, found = _shares(traced), set()
    for node in traced.graph.nodes:
        if _mutates(node):
            for changed in (node, *node.args[:1], node.kwargs.get("out")):
                found |= shares.get(changed, set())
    return found


def _mutates(node: fx.Node) -> bool:
    """Whether a call changes something in place, by the names torch gives such calls."""
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return (
            node.target is operator.setitem or "out" in node.kwargs or (name.endswith("_") and not name.endswith("__"))
        )
    return False
