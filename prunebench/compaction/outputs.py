"""The tensors in what a model returns, whatever it wraps them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def tensors_of(output: Any) -> list[Tensor]:
    """In order: of nested tuples, lists and mappings, and of any object's attributes (a dataclass, say)."""
    return list(_found(output, set()))


def _found(output: Any, seen: set[int]) -> Iterator[Tensor]:
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
            continue
        inner = list(leaf.values()) if isinstance(leaf, Mapping) else _attributes(leaf)
        if inner and id(leaf) not in seen:
            seen.add(id(leaf))  # an object may hold itself
            yield from _found(inner, seen)


def _attributes(thing: Any) -> list[Any]:
    if isinstance(thing, type) or callable(thing):
        return []
    slots = [name for kind in type(thing).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, n) for n in slots if hasattr(thing, n))]


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
