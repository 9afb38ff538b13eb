"""The sparse inference engine: graph -> plan -> native kernels. Importing this package imports no torch.

engine = compile_engine(model, example_input, threads=2)
y = engine(x)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prunebench.engine.native_loader import available

if TYPE_CHECKING:
    from prunebench.engine.compiler import compile_engine
    from prunebench.engine.runtime import Engine

__all__ = ["Engine", "available", "compile_engine"]

_LAZY = {"compile_engine": "prunebench.engine.compiler", "Engine": "prunebench.engine.runtime"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'prunebench.engine' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
