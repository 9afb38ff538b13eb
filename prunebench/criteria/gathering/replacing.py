"""Other functions in an activation's place while something is gathered, called by the model or by a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Replacing(TorchFunctionMode):
    """Within it, functions of these names (in-place forms included) are f(x) instead."""

    def __init__(self, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self._functions = functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        other = self._functions.get(getattr(func, "__name__", "").rstrip("_"))
        if other is None:
            return func(*args, **(kwargs or {}))
        return other(args[0] if args else (kwargs or {})["input"])
