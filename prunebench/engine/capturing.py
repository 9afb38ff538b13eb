"""Models that can't be traced symbolically, captured by TorchDynamo instead: control flow on shapes, dataclass outputs.

Hugging Face's models are such: they compare their input's channels, and return a ModelOutput.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from prunebench.engine.captured import bind
from prunebench.engine.functional import lift


class Refused(Exception):
    """Why a model can't be captured as one graph of one tensor."""


def _leaves(model: nn.Module) -> Callable[[torch.Tensor], tuple[Any, ...]]:
    """The model as a function that returns the tuple of its tensors, whatever holds them."""

    def leaves(x: torch.Tensor) -> tuple[Any, ...]:
        return tuple(tree_flatten(model(x))[0])

    # Code of its own: TorchDynamo counts by code how often it had to compile, and gives up after a few models.
    return types.FunctionType(leaves.__code__.replace(), globals(), closure=leaves.__closure__)


class Repacked(nn.Module):
    """A graph that returns the tuple of tensors, and what the model packs them into."""

    def __init__(self, graph: nn.Module, spec: TreeSpec):
        super().__init__()
        self.graph, self.spec = graph, spec

    def forward(self, x: torch.Tensor) -> Any:
        """As the model."""
        return tree_unflatten(list(self.graph(x)), self.spec)


def capture(model: nn.Module, example: torch.Tensor) -> tuple[fx.GraphModule, TreeSpec | None]:
    """(the model as a lifted graph, how its output is packed: None where it is the one tensor itself).

    model: plain float32 weights of its own, eval mode; it isn't changed, and the graph shares nothing with it. example:
    float32 (n, …); the graph takes any n, and all else as it is in the example. Raises Refused or what TorchDynamo
    raises: several graphs, outputs beside tensors.
    Source: the backend protocol of torch._dynamo.backends.registry.
    """
    with torch.inference_mode():
        leaves, spec = tree_flatten(model(example))
    if not leaves or not all(isinstance(t, torch.Tensor) for t in leaves):
        raise Refused("its output holds more than tensors")
    # A batch of one is taken for a constant, and so is a tensor made in inference mode.
    with torch.inference_mode(False), torch.no_grad():
        x = torch.cat([example.clone()] * 2) if example.shape[0] == 1 else example.clone()
        torch._dynamo.mark_dynamic(x, 0)
        seen: list[tuple[fx.GraphModule, Sequence[Any]]] = []

        def keep(gm: fx.GraphModule, args: Sequence[Any]) -> Any:
            seen.append((gm, args))
            return gm.forward

        torch.compile(_leaves(model), backend=keep, fullgraph=True)(x)
        if len(seen) != 1:
            raise Refused(f"it is {len(seen)} graphs")
        graph = bind(*seen[0]).module
    output = next(n for n in graph.graph.nodes if n.op == "output")
    if spec.is_leaf():
        output.args = (output.args[0][0],)
        graph.recompile()
    return lift(graph), None if spec.is_leaf() else spec
