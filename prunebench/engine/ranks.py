"""Questions about a tensor's rank taken out of a traced graph: an engine has one rank, so their answers are fixed.

timm's batch norms ask `x.ndim == 4` in every layer; left in, each question would end one native segment.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

_COMPARISONS = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.not_}
_RANKS = ("dim", "ndimension")


class _Ranks(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.found: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.found[n] = result.dim()
        return result


def _asks(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target is getattr and tuple(node.args[1:]) == ("ndim",)
    return node.op == "call_method" and node.target in _RANKS and len(node.args) == 1


def _varies(node: fx.Node) -> bool:
    """squeeze without dimensions: what it leaves depends on the number of images."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in ("squeeze", "squeeze_") and len(node.args) == 1 and not node.kwargs


def fold_ranks(traced: fx.GraphModule, example: torch.Tensor) -> fx.GraphModule:
    """The same GraphModule, changed in place: `x.ndim`, comparisons of it and assertions that then hold are gone.

    example: an input as the graph takes it; run only where the graph asks. An assertion that fails stays.
    """
    nodes = list(traced.graph.nodes)
    if not any(_asks(n) for n in nodes) or any(_varies(n) for n in nodes):
        return traced
    ranks = _Ranks(traced)
    ranks.run(example)
    known: dict[fx.Node, Any] = {}

    def value(argument: Any) -> Any:
        return known.get(argument, argument) if isinstance(argument, fx.Node) else argument

    for node in nodes:
        if _asks(node) and node.args[0] in ranks.found:
            known[node] = ranks.found[node.args[0]]
        elif node.op == "call_function" and node.target in _COMPARISONS and not node.kwargs:
            values = [value(a) for a in node.args]
            if all(isinstance(v, int) for v in values):
                known[node] = node.target(*values)
        elif node.op == "call_function" and node.target is torch._assert and value(node.args[0]) is True:
            traced.graph.erase_node(node)
    for node in reversed(list(known)):
        for user in list(node.users):
            user.args = fx.node.map_arg(user.args, value)
            user.kwargs = fx.node.map_arg(user.kwargs, value)
        traced.graph.erase_node(node)
    traced.graph.lint()
    traced.recompile()
    return traced
