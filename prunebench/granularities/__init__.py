"""Granularities: what is removed together.

A granularity plugin is `f(scored, **params) -> unit sets` for a `Scored`: the layers with their weights' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunebench.errors import PluginError, PrunebenchError, UsageError, reason
from prunebench.registry import Plugin, defaults, get
from prunebench.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.units import UnitSet

__all__ = ["Scored", "fits", "only_sparsity", "reachable", "unit_sets"]

# A sparsity is typed as a decimal, 1 - n/m may be none: 0.667 means 2/3.
ROUNDING = 5e-4


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
    if plugin.builtin:
        return _formed(plugin, spec, scored)
    from prunebench.granularities.checked import checked
    from prunebench.guard import Guard

    guard = Guard(scored.model)
    try:
        sets = checked(plugin.name, _formed(plugin, spec, replace(scored, scores=_copies(scored.scores))), scored)
        changed = guard.found(values=True)
        if changed is not None:
            raise PluginError(f"granularity {plugin.name!r} changed {changed}; it only forms units")
    except BaseException:
        guard.restore()
        raise
    return sets


def _copies(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: score.clone() for name, score in scores.items()}


def _formed(plugin: Plugin, spec: Spec, scored: Scored) -> Sequence[UnitSet]:
    try:
        return plugin.bind(spec)(scored)
    except (PrunebenchError, Warning):  # a warning raised as an error is the caller's wish, no fault of the plugin
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"granularity {plugin.name!r} raised: {reason(error)}") from error


def only_sparsity(text: str) -> float | None:
    """The one sparsity that a registered granularity can reach (`n_m`: 1 - n/m); None where any will do."""
    plugin, spec = get("granularities", text)
    rule = plugin.declared.get("sparsity")
    return None if rule is None else float(rule(**{**defaults(plugin), **dict(spec.params)}))


def fits(sparsity: float, only: float) -> bool:
    """True where a sparsity as typed means a granularity's only one."""
    return abs(sparsity - only) <= ROUNDING


def reachable(text: str, sparsity: float) -> float:
    """The sparsity as the granularity reaches it; 0 and any within rounding of its only one, else UsageError."""
    only = only_sparsity(text)
    if only is None or sparsity == 0:
        return sparsity
    if not fits(sparsity, only):
        raise UsageError(
            f"granularity {text!r} can't reach sparsity {sparsity:g}; its only one is {only:.4g}, give that"
        )
    return only
