"""Scopes: how a total sparsity is shared among layers.

A scope plugin is `f(sets, sparsity, **params) -> counts`: for a sequence of `prunebench.units.UnitSet` it returns
how many units each set loses. Within a set the lowest scores go, whatever the scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.errors import PluginError, PrunebenchError, reason
from prunebench.registry import get

if TYPE_CHECKING:
    from prunebench.units import UnitSet

__all__ = ["share_out"]


def share_out(text: str, sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    """Units to remove per set under a registered scope; PluginError for counts that can't be."""
    plugin, spec = get("scopes", text)
    try:
        counts = [int(c) for c in plugin.bind(spec)(sets, sparsity)]
    except (PrunebenchError, Warning):  # a warning raised as an error is the caller's wish, no fault of the plugin
        raise
    except Exception as error:
        raise PluginError(f"scope {plugin.name!r} raised: {reason(error)}") from error
    if len(counts) != len(sets):
        raise PluginError(f"scope {plugin.name!r} returned {len(counts)} counts for {len(sets)} layers")
    for count, unit_set in zip(counts, sets, strict=True):
        if not 0 <= count <= unit_set.units:
            raise PluginError(f"scope {plugin.name!r} removes {count} of {unit_set.units} units of {unit_set.names[0]}")
    return counts
