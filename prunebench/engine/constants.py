"""Which nodes of a traced graph always have the same value: stored tensors, and what pure functions make of them.

A masked or reparametrised weight is such a value: `mask * weight` is computed once here, not at every call. A tensor
that the graph may write to is never one.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

_WRITING_OPERATORS = {
    getattr(operator, name)
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor",
                 "ilshift", "irshift", "iconcat", "setitem", "delitem")
}  # fmt: skip
_WRITING_METHODS = {f"__{f.__name__}__" for f in _WRITING_OPERATORS}
# Functions whose result never shares memory with an argument; every other one might, as a view does.
_FRESH = {"add", "sub", "mul", "div", "truediv", "neg", "matmul", "mm", "addmm", "conv2d", "linear", "batch_norm"}


def attribute(root: nn.Module, target: str) -> Any:
    """What a get_attr node reads: the attribute at a dotted path, or None."""
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part, None)
    return value


def _name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _from_torch(node: fx.Node) -> bool:
    """Whether torch or Python's operators define what the node does; anything else may do anything."""
    if node.op == "call_method":
        return True
    module = getattr(node.target, "__module__", None) or type(node.target).__module__
    known = node.target is getattr or module.split(".")[0] in ("torch", "_operator")
    return node.op == "call_function" and known


def writes(node: fx.Node) -> bool:
    """Whether a node may change one of its arguments."""
    if node.op in ("placeholder", "get_attr", "output"):
        return False
    if node.op == "call_module" or not _from_torch(node):
        return True
    name, schema = _name(node), getattr(node.target, "_schema", None)
    if schema is not None and schema.is_mutable:
        return True
    if name == "batch_norm":  # updates its running statistics unless it is told not to
        return bool(node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False))
    if "batch_norm" in name or "instance_norm" in name:
        return True
    inplace = name.endswith("_") and not name.endswith("__")
    inplace = inplace or node.target in _WRITING_OPERATORS or name in _WRITING_METHODS
    # a flag given by position: F.relu(x, True), F.dropout(x, p, training, True)
    flag = node.kwargs.get("inplace", len(node.args) > 1 and node.args[-1] is True)
    return inplace or flag is not False or node.kwargs.get("out") is not None


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage()._cdata


def _computed(node: fx.Node, values: dict[fx.Node, torch.Tensor]) -> torch.Tensor | None:
    """The value of a call of constants alone, or None where it isn't one tensor or draws random numbers."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    before = torch.get_rng_state()
    try:
        with torch.no_grad():
            if node.op == "call_method":
                value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                value = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception:  # it will raise again where it did before
        return None
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        return None
    return value if _simple(value) else None


def _simple(value: Any) -> bool:
    return type(value) in (torch.Tensor, nn.Parameter) and value.layout == torch.strided


def constants(traced: fx.GraphModule) -> dict[fx.Node, torch.Tensor]:
    """The nodes of a graph whose value is the same tensor at every call, and that value, computed without gradients.

    traced: any fx.GraphModule; it isn't changed. Stored tensors come as they are (the same nn.Parameter object).
    A tensor that some node may write to, directly or through a view, is left out. Source: the usual constant folding,
    with what fx tells about mutation.
    """
    values: dict[fx.Node, torch.Tensor] = {}
    reach: dict[fx.Node, set[int]] = {}  # storages of constants that a node's result may share
    made_of: dict[fx.Node, set[int]] = {}  # storages that a constant's value was read from
    written: set[int] = set()
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            value = attribute(traced, str(node.target))
            if _simple(value):
                values[node], reach[node] = value, {_storage(value)}
                made_of[node] = reach[node]
            continue
        inputs = node.all_input_nodes
        shared: set[int] = set().union(*(reach.get(i, set()) for i in inputs))
        if writes(node):
            written |= shared
        elif inputs and all(i in values for i in inputs) and node.op != "output" and _from_torch(node):
            found = _computed(node, values)
            if found is not None:
                values[node], reach[node] = found, {_storage(found)}
                made_of[node] = reach[node].union(*(made_of[i] for i in inputs))
                continue
        if _name(node) not in _FRESH:
            reach[node] = shared
    return {node: value for node, value in values.items() if not made_of[node] & written}
