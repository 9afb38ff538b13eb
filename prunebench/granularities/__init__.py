"""Granularities: what is removed together.

A granularity plugin is `f(scored, **params) -> unit sets` for a `Scored`: the layers with their weights' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.errors import PluginError, PrunebenchError, reason
from prunebench.registry import get

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.units import UnitSet

__all__ = ["Scored", "unit_sets"]


@dataclass(frozen=True)
class Scored:
    """Layers with a score for every weight.

    keep: earlier masks, or None; reduce: (filters, weights) -> (filters,); compare: "row" where single weights are
    ranked among those of their own output only.
    """

    model: nn.Module
    modules: Mapping[str, Any]
    scores: Mapping[str, Tensor]
    keep: Mapping[str, Tensor] | None
    reduce: Callable[[Tensor], Tensor]
    compare: str = "layer"

    def kept(self, name: str) -> Tensor | None:
        return None if self.keep is None else self.keep.get(name)


def unit_sets(text: str, scored: Scored) -> Sequence[UnitSet]:
    """The sets of units that a registered granularity forms."""
    plugin, spec = get("granularities", text)
    try:
        return plugin.bind(spec)(scored)
    except PrunebenchError:
        raise
    except Exception as error:
        raise PluginError(f"granularity {plugin.name!r} raised: {reason(error)}") from error
