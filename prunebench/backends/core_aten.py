"""A model as calls of torch's core ATen operators on plain arrays: what the JAX and TensorFlow backends are built from.

Convolutions and linear layers are kept whole, batch norms are folded into the convolutions before them, and weights
lie as those frameworks want them: kernels (rows, columns, in/groups, out), linear weights (in, out).
"""

from __future__ import annotations

import math
import operator
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunebench.attention import unfused

INPUT = "x"
_KEPT = ("linear.default", "conv2d.default", "conv2d.padding")
_NORM = "native_batch_norm_legit_no_training"
_FIRST_ONLY = (_NORM, "max_pool2d_with_indices", "native_layer_norm")  # of their results only the first is used


@dataclass(frozen=True)
class Ref:
    """A value by name: the input, a weight, or an earlier call's result."""

    name: str


@dataclass
class Call:
    """One operator, named as in core ATen without its overload and the underscore before it.

    `args` hold constants and Refs, lists of them too.
    """

    name: str
    op: str
    args: list[Any]
    options: dict[str, Any]


@dataclass
class Graph:
    """Calls in order, the weights that they read, and what comes out."""

    calls: list[Call]
    weights: dict[str, np.ndarray]
    output: Ref


def captured(model: nn.Module, example: Tensor) -> Graph:
    """The eval-mode model for inputs of exactly the example's shape; raises what torch.export raises.

    ValueError: no single output tensor, state that changes, results of an operator beyond its first. Source: torch's
    documentation of the core ATen IR; folding as in torch.nn.utils.fusion, in float64.
    """
    with torch.inference_mode(False), torch.no_grad(), unfused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (example.detach().clone(),))
        table = torch.export.default_decompositions()
        for name in _KEPT:
            packet, overload = name.split(".")
            table.pop(getattr(getattr(torch.ops.aten, packet), overload), None)
        program = exported.run_decompositions(table)
    graph = _graph(program)
    calls, alias = _folded(graph.calls, graph.weights)
    _lay_out(calls, graph.weights)
    read = {ref.name for call in calls for ref in refs(call)}
    weights = {name: weight for name, weight in graph.weights.items() if name in read}
    return Graph(calls, weights, alias.get(graph.output.name, graph.output))


def refs(call: Call) -> Iterator[Ref]:
    """The values that a call reads, as often as it does."""
    for value in [*call.args, *call.options.values()]:
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Ref))


def _graph(program: Any) -> Graph:
    signature = program.graph_signature
    if signature.buffers_to_mutate or len(signature.user_outputs) != 1 or len(signature.user_inputs) != 1:
        raise ValueError("it changes its own state, or has more than one input or output")
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored |= signature.inputs_to_lifted_tensor_constants
    calls: list[Call] = []
    weights: dict[str, np.ndarray] = {}
    alias = {signature.user_inputs[0]: Ref(INPUT)}
    firsts: dict[str, str] = {}

    def value(node: Any) -> Any:
        return alias.get(node.name, Ref(node.name))

    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in stored:
            tensor = program.state_dict.get(stored[node.name], program.constants.get(stored[node.name]))
            weights[node.name] = tensor.detach().numpy()
        elif node.op == "call_function" and node.target is operator.getitem and node.args[0].name in firsts:
            if node.args[1] != 0:
                raise ValueError(f"it uses result {node.args[1]} of aten.{firsts[node.args[0].name]}")
            alias[node.name] = Ref(node.args[0].name)
        elif node.op == "call_function":
            op = _named(node.target)
            if op in _FIRST_ONLY:
                firsts[node.name] = op
            args, options = fx.node.map_arg((node.args, node.kwargs), value)
            plain = [list(a) if isinstance(a, (list, tuple)) else a for a in args]
            calls.append(Call(node.name, op, plain, dict(options)))
    output = signature.user_outputs[0]
    if output in weights:
        raise ValueError("its output doesn't depend on its input")
    return Graph(calls, weights, alias.get(output, Ref(output)))


def _named(target: Any) -> str:
    return "item" if target is operator.getitem else str(target).removeprefix("aten.").split(".")[0].lstrip("_")


def _folded(calls: list[Call], weights: dict[str, np.ndarray]) -> tuple[list[Call], dict[str, Ref]]:
    """Batch norms gone into the convolution before them, where nothing else reads it; others as `scale_shift`.

    Second: the names that are gone, with what stands for them.
    """
    made = {call.name: call for call in calls}
    reads = Counter(ref.name for call in calls for ref in refs(call))
    alias: dict[str, Ref] = {}
    left = []
    for call in calls:
        call.args = [_renamed(value, alias) for value in call.args]
        left.append(call)
        if call.op != _NORM:
            continue
        x, *parts, _, eps = call.args
        gamma, beta, mean, variance = (None if p is None else weights[p.name].astype(np.float64) for p in parts)
        scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + eps)
        shift = (0.0 if beta is None else beta) - mean * scale
        before = made.get(x.name)
        if before is not None and before.op == "conv2d" and reads[x.name] == 1 and before.args[1].name in weights:
            bias = before.args[2] if len(before.args) > 2 else None
            own = 0.0 if bias is None else weights[bias.name].astype(np.float64)
            kernel = weights[before.args[1].name] * scale.reshape(-1, 1, 1, 1)
            weights[f"{before.name}.weight"] = kernel.astype(np.float32)
            weights[f"{before.name}.bias"] = (own * scale + shift).astype(np.float32)
            before.args[1:3] = [Ref(f"{before.name}.weight"), Ref(f"{before.name}.bias")]
            alias[call.name] = x
            left.pop()  # and its results go by the convolution's name
        else:
            weights[f"{call.name}.scale"] = scale.astype(np.float32)
            weights[f"{call.name}.shift"] = shift.astype(np.float32)
            call.op, call.options = "scale_shift", {}
            call.args = [x, Ref(f"{call.name}.scale"), Ref(f"{call.name}.shift")]
    return left, alias


def _renamed(value: Any, alias: dict[str, Ref]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, alias) for one in value]
    return alias.get(value.name, value) if isinstance(value, Ref) else value


def _lay_out(calls: list[Call], weights: dict[str, np.ndarray]) -> None:
    # Under names of their own: a weight that something else reads as well stays as it was.
    turns = {"conv2d": ("kernel", (2, 3, 1, 0)), "linear": ("transposed", (1, 0))}
    for call in calls:
        if call.op in turns:
            word, order = turns[call.op]
            name = call.args[1].name
            if name not in weights:
                raise ValueError(f"it computes the weight of a {call.op} while it runs")
            weights.setdefault(f"{name}.{word}", np.ascontiguousarray(weights[name].transpose(order)))
            call.args[1] = Ref(f"{name}.{word}")


def window_pads(size: int, taps: int, stride: int, padding: int, dilation: int, ceil: bool) -> tuple[int, int]:
    """(before, after) that make a pooling window without padding give as many outputs as torch's does."""
    reach = dilation * (taps - 1) + 1
    if not ceil:
        return padding, padding
    count = math.ceil((size + 2 * padding - reach) / stride) + 1
    if (count - 1) * stride >= size + padding:  # as torch: a window starts inside the input or its left padding
        count -= 1
    return padding, (count - 1) * stride + reach - size - padding
