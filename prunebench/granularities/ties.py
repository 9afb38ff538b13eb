"""Which layers must lose the same filters: outputs that are added or multiplied channel by channel.

The model is traced with torch.fx; each value carries the ids of the filters its channels came from, and an
elementwise operation unites them. Layers whose filters reach the model's output, or meet its input or an
excluded layer, can't lose any.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

_Channels = tuple[int, ...] | None  # ids of the filter sets that a value's channels are made of, in order

_ELEMENTWISE = {
    operator.add,
    operator.iadd,
    operator.sub,
    operator.mul,
    operator.imul,
    operator.truediv,
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.maximum,
    torch.minimum,
}
CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}
_PRODUCTS = {"scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"}
# By name, because torch and torch.nn.functional hold several functions for each.
_KEEPING_CHANNELS = (
    "relu",
    "relu_",
    "relu6",
    "hardswish",
    "silu",
    "gelu",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "leaky_relu",
    "elu",
    "softmax",
    "log_softmax",
    "dropout",
    "max_pool2d",
    "boolean_dispatch",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "flatten",
    "mean",
    "contiguous",
    "interpolate",
    "stochastic_depth",
    "batch_norm",
    "clone",
)


class _Union:
    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def unite(self, a: int, b: int) -> None:
        self.parent[self.find(b)] = self.find(a)


def tied_filters(model: nn.Module, modules: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Groups of parameter names whose filters must go together; layers that can't lose filters are in none.

    A model that torch.fx can't trace is taken as a chain: no ties, its last layer the classifier.
    """
    names = {id(module): name for name, module in modules.items()}
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # any of user code's own errors on a proxy: the model can't be traced
        return [(name,) for name in list(modules)[:-1]]
    flow = Flow(model, names)
    attends = _attends(model, graph)
    for node in graph.nodes:
        flow.visit(node)
        if attends:
            flow.hold(node)
    return flow.groups()


def _attends(model: nn.Module, graph: fx.Graph) -> bool:
    """Whether activations are multiplied with activations, as attention does."""
    names = {getattr(node.target, "__name__", node.target) for node in graph.nodes if node.op.startswith("call_")}
    return bool(names & _PRODUCTS) or any(isinstance(m, nn.MultiheadAttention) for m in model.modules())


class Flow:
    """Follows filters through a traced model: `channels` of each node, `fixed` those that stay."""

    def __init__(self, model: nn.Module, names: Mapping[int, str]) -> None:
        self.model, self.names = model, names
        self.ids = _Union()
        self.channels: dict[fx.Node, _Channels] = {}
        self.layer: dict[str, int] = {}
        self.fixed: set[int] = set()
        self.last: int | None = None

    def visit(self, node: fx.Node) -> None:
        inputs = [self.channels.get(n) for n in node.all_input_nodes]
        if node.op in ("placeholder", "get_attr"):
            self.channels[node] = (self._fixed(),)
        elif node.op == "output":
            reached = [i for channels in inputs for i in channels or ()]
            self.fixed.update(reached or ([self.last] if self.last is not None else []))
        elif node.op == "call_module":
            self.channels[node] = self._module(self.model.get_submodule(str(node.target)), inputs)
        else:
            self.channels[node] = self._function(node, inputs)

    def hold(self, node: fx.Node) -> None:
        """Leave alone what enters a step behind which no channel can be followed.

        Beside attention that is most of them: heads are cut out of the projections' outputs, and the sum that runs
        through all blocks takes in what attention made.
        """
        if node.op.startswith("call_") and self.channels.get(node) is None:
            self.fixed.update(i for n in node.all_input_nodes for i in self.channels.get(n) or ())

    def _fixed(self) -> int:
        i = self.ids.new()
        self.fixed.add(i)
        return i

    def _module(self, module: nn.Module, inputs: list[_Channels]) -> _Channels:
        if not isinstance(module, (_ConvNd, nn.Linear)):
            known = type(module).__module__.startswith("torch.nn") and not isinstance(
                module, (nn.PixelShuffle, nn.ChannelShuffle, nn.Fold, nn.Unfold)
            )
            # One of torch's own with layers inside, attention say, mixes channels.
            known = known and not any(isinstance(m, (_ConvNd, nn.Linear)) for m in module.modules())
            return inputs[0] if known and len(inputs) == 1 else None
        name = self.names.get(id(module))
        if name is None:
            out = self._fixed()
        else:
            out = self.layer.setdefault(name, self.ids.new())
            self.last = out
        depthwise = isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1
        if depthwise and inputs and inputs[0] is not None and len(inputs[0]) == 1:
            self.ids.unite(inputs[0][0], out)
        return (out,)

    def _function(self, node: fx.Node, inputs: list[_Channels]) -> _Channels:
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        if target in _ELEMENTWISE or name in ("add", "add_", "mul", "mul_", "sub", "div"):
            known = [c for c in inputs if c is not None]
            for other in known[1:]:
                if len(other) == len(known[0]):
                    for a, b in zip(known[0], other, strict=True):
                        self.ids.unite(a, b)
            return known[0] if known and len(known) == len(inputs) else None
        if target in CONCATENATIONS:
            dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            if dim == 1 and all(c is not None for c in inputs):
                return tuple(i for channels in inputs for i in channels or ())
            return None
        return inputs[0] if name in _KEEPING_CHANNELS and inputs else None

    def groups(self) -> list[tuple[str, ...]]:
        fixed = {self.ids.find(i) for i in self.fixed}
        members: dict[int, list[str]] = {}
        for name, i in self.layer.items():
            members.setdefault(self.ids.find(i), []).append(name)
        return [tuple(names) for root, names in members.items() if root not in fixed]
