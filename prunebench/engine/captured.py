"""A graph that torch.compile captured, as a module of one tensor: weights bound, symbolic sizes read from the input.

TorchDynamo hands parameters and buffers over as inputs of the graph (get_attr in torch 2.4), beside the real ones. The
real ones are those it doesn't mark as static addresses of a module. A Python float that may change (with dynamic=True,
a batch norm's eps) comes as a tensor without dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from prunebench.engine.constants import attribute, constants


class LeftToTorch(Exception):
    """Why a graph isn't compiled here, in words that go on with "because"; no words where nothing is lost."""


@dataclass
class Captured:
    """The bound module, what of the graph's inputs it stands for, and how its results become the graph's outputs."""

    module: fx.GraphModule  # one tensor in, a tuple of tensors and numbers out
    input: int  # which of the graph's inputs is the tensor
    example: torch.Tensor  # a copy of it, as it was captured
    weights: list[int]  # which of the graph's inputs are bound as constants
    numbers: dict[int, float]  # inputs that are Python's numbers, bound as well
    held: list[torch.Tensor]  # weights that the graph itself holds
    outputs: list[Any]  # the graph's outputs: constants, and None for the next result of the module


def is_weight(node: fx.Node, value: torch.Tensor) -> bool:
    """Whether a placeholder's tensor belongs to a module: a parameter, buffer or attribute of one."""
    mark = "_dynamo_static_input_type"
    return isinstance(value, nn.Parameter) or mark in node.meta.get("tensor_dict", ()) or hasattr(value, mark)


def _private(value: torch.Tensor) -> torch.Tensor:
    """A copy that shares nothing and counts its versions, which tensors made in inference mode don't."""
    with torch.inference_mode(False), torch.no_grad():
        twin = value.detach().clone()
    if isinstance(value, nn.Parameter):
        return nn.Parameter(twin, requires_grad=value.requires_grad)
    return twin.requires_grad_(value.requires_grad)


def _size_of(symbol: fx.Node, x: fx.Node) -> int | None:
    """The dimension of x that a symbolic size stands for, or None."""
    shape = getattr(x.meta.get("example_value"), "shape", ())
    wanted = symbol.meta.get("example_value")
    for i, size in enumerate(shape):
        if isinstance(wanted, torch.SymInt) and isinstance(size, torch.SymInt) and size.node.expr == wanted.node.expr:
            return i
    return None


def _attribute_names(gm: fx.GraphModule, nodes: list[fx.Node]) -> list[str]:
    """Readable, distinct names for weights: `layer1_0_conv1_weight`."""
    fqn = {k.lower(): v for k, v in gm.meta.get("dynamo_flat_name_to_original_fqn", {}).items()}
    names: list[str] = []
    for node in nodes:
        name = str(fqn.get(str(node.target).lower(), node.name)).replace(".", "_")
        for word in ("l_self_", "modules_", "parameters_", "buffers_", "parametrizations_"):
            name = name.replace(word, "")
        name = name.strip("_") or "weight"
        names.append(name if name.isidentifier() and name not in names else f"{node.name.strip('_')}_weight")
    return names


@dataclass
class _Inputs:
    """A graph's placeholders, and which of them are what."""

    places: list[fx.Node]
    weights: list[int]
    numbers: dict[int, float]
    tensor: int


def _sort(gm: fx.GraphModule, args: Sequence[Any]) -> _Inputs:
    """Which placeholder is what; refuses what can't be bound."""
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    if len(places) != len(args):
        raise LeftToTorch("its inputs are nested")
    weights: list[int] = []
    tensors: list[int] = []
    numbers: dict[int, float] = {}
    for i, (node, value) in enumerate(zip(places, args, strict=True)):
        if isinstance(value, torch.Tensor):
            if type(value) not in (torch.Tensor, nn.Parameter) or value.layout != torch.strided:
                raise LeftToTorch(f"{node.name} is no plain tensor but a {type(value).__name__}")
            if value.dim() == 0 and node.meta.get("tensor_dict") is None and "example_value" in node.meta:
                numbers[i] = value.item()
            else:
                (weights if is_weight(node, value) else tensors).append(i)
        elif not isinstance(value, (int, torch.SymInt)) and node.users:
            raise LeftToTorch(f"it takes an input of type {type(value).__name__}")
    if len(tensors) != 1:
        raise LeftToTorch(f"it takes {len(tensors)} input tensors, and the engine takes one" if tensors else "")
    return _Inputs(places, weights, numbers, tensors[0])


def bind(gm: fx.GraphModule, args: Sequence[Any]) -> Captured:
    """The captured graph as a module of its one real input; gm and args aren't changed, and share nothing with it.

    args: real (not fake) tensors and sizes in the order of the placeholders. LeftToTorch: more than one tensor, a size
    that isn't one of the input's, a weight made in inference mode, nested outputs. Source: torch._dynamo's
    OutputGraph, which notes for each placeholder where its value came from.
    """
    inputs = _sort(gm, args)
    places, weights = inputs.places, inputs.weights
    x = places[inputs.tensor]
    if any(args[i].is_inference() for i in weights):
        raise LeftToTorch("its weights were made in inference mode, where a change of them can't be seen")
    memo: dict[int, Any] = {}
    root: dict[str, Any] = {}
    for node in gm.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            root[str(node.target)] = copy.deepcopy(attribute(gm, str(node.target)), memo)
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {x: graph.placeholder("x")}
    env[x].meta = {"example_value": x.meta.get("example_value")}
    for i, name in zip(weights, _attribute_names(gm, [places[i] for i in weights]), strict=True):
        while name in root:
            name += "_"
        root[name] = _private(args[i])
        env[places[i]] = graph.get_attr(name)
    for i, number in inputs.numbers.items():
        for user in places[i].users:
            if (user.op, user.target) != ("call_method", "item"):
                raise LeftToTorch(f"it calculates with the number {places[i].name}")
            env[user] = number
    for i, node in enumerate(places):
        if node not in env and node.users and i not in inputs.numbers:
            dim = _size_of(node, x)
            if dim is None:
                raise LeftToTorch(f"it calculates with the number {node.name}, which is no size of its input")
            env[node] = graph.call_method("size", (env[x], dim))
    for node in gm.graph.nodes:
        if node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], env.__getitem__))
        elif node.op != "placeholder" and node not in env:
            env[node] = graph.node_copy(node, env.__getitem__)
            env[node].meta = {"example_value": node.meta.get("example_value")}
    module = fx.GraphModule(root, graph)
    for m in module.modules():
        if isinstance(m, fx.GraphModule) or type(m) is nn.Module:
            m.training = False  # graphs and holders of attributes have no mode of their own
    held = [*gm.parameters(), *gm.buffers()]
    return Captured(module, inputs.tensor, _private(args[inputs.tensor]), weights, inputs.numbers, held, [])


def split_outputs(captured: Captured) -> None:
    """Keeps the outputs that are always the same (a masked weight that torch stores back) out of the module."""
    output = next(n for n in captured.module.graph.nodes if n.op == "output")
    if not isinstance(output.args[0], (tuple, list)) or any(isinstance(v, (tuple, list)) for v in output.args[0]):
        raise LeftToTorch("its outputs are nested")
    values = constants(captured.module)
    stored = {v.untyped_storage().data_ptr() for node, v in values.items() if node.op == "get_attr"}
    left = []
    for value in output.args[0]:
        if isinstance(value, fx.Node) and value not in values:
            left.append(value)
            captured.outputs.append(None)
        elif isinstance(value, fx.Node):
            if values[value].untyped_storage().data_ptr() in stored:
                raise LeftToTorch("it returns one of its weights")
            captured.outputs.append((values[value],))
        else:
            captured.outputs.append((value,))
    if not left:
        raise LeftToTorch("")
    output.args = (tuple(left),)
    captured.module.recompile()
