"""Symbolic tracing that leaves the process's other threads alone."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Any

from torch import fx, nn

# torch.fx patches nn.Module for the whole process while it traces: one trace at a time
_LOCK = threading.Lock()


class _Proxy(fx.Proxy):
    """torch's own proxy takes `y += x` for `y = y + x`, which whoever holds a view of y would notice."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Modules that another thread calls meanwhile run as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(model: nn.Module) -> fx.GraphModule:
    """The model as a graph; raises whatever tracing raises for control flow that depends on data."""
    with _LOCK:
        tracer = _Tracer()
        graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph)
