"""prunebench: does pruning make a network smaller and faster at the same accuracy, on this machine?

This file only hands names on, lazily: importing it imports no torch, so that test collection stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prunebench.registry import backend, criterion, dataset, granularity, model, schedule, scope

if TYPE_CHECKING:
    from prunebench import kernels, schedules
    from prunebench.backends import compile
    from prunebench.compaction import compact
    from prunebench.export import export_onnx
    from prunebench.formats import load, save
    from prunebench.pruner import Pruner, prune

__version__ = "0.1.0"

_LAZY = {
    "prune": ("prunebench.pruner", "prune"),
    "Pruner": ("prunebench.pruner", "Pruner"),
    "compact": ("prunebench.compaction", "compact"),
    "compile": ("prunebench.backends", "compile"),
    "export_onnx": ("prunebench.export", "export_onnx"),
    "save": ("prunebench.formats", "save"),
    "load": ("prunebench.formats", "load"),
    "kernels": ("prunebench.kernels", None),
    "schedules": ("prunebench.schedules", None),
}

__all__ = [
    "Pruner",
    "backend",
    "compact",
    "compile",
    "criterion",
    "dataset",
    "export_onnx",
    "granularity",
    "kernels",
    "load",
    "model",
    "prune",
    "save",
    "schedule",
    "schedules",
    "scope",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'prunebench' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
