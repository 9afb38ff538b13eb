"""Scopes: how a total sparsity is shared among layers.

A scope plugin is `f(sets, sparsity, **params) -> counts`: for a sequence of `prunebench.units.UnitSet` it returns
how many units each set loses. Within a set the lowest scores go, whatever the scope.

Layers with a sparsity of their own never reach the plugin. Every scope takes `first=` and `last=` for the model's first
and last prunable layer, "dense" or a sparsity: `global:first=dense:last=dense`. The others get the sparsity asked for,
so that of the whole model is lower where layers stay dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from prunebench.cell import check_sparsity
from prunebench.errors import PluginError, PrunebenchError, UsageError, reason
from prunebench.registry import get, own_sparsity

if TYPE_CHECKING:
    from prunebench.units import UnitSet

__all__ = ["own_sparsities", "share_out"]


def own_sparsities(text: str, names: Mapping[str, tuple[str, ...]], overrides: Mapping[str, float]) -> dict[str, float]:
    """{parameter name: final sparsity} of the layers that have one of their own.

    names: the model's prunable weights in order, each with all names that mean it. overrides: shell patterns on those
    names, as for `exclude`; the first that fits a layer decides, and before the scope's `first` and `last`.
    Raises UsageError for a pattern that fits nothing, or a sparsity outside [0, 1).
    """
    plugin, spec = get("scopes", text)
    layers, own = list(names), {}
    for key, layer in (("first", layers[0]), ("last", layers[-1])):
        value = own_sparsity(plugin, spec, key)
        if value is not None:
            own[layer] = float(value)
    wanted = {pattern: check_sparsity(value) for pattern, value in overrides.items()}
    fitting = {p: {n for n, aliases in names.items() if any(fnmatchcase(a, p) for a in aliases)} for p in wanted}
    for pattern, fits in fitting.items():
        if not fits:
            raise UsageError(f"overrides: {pattern!r} fits no conv or linear layer; known: {', '.join(layers)}")
    for name in layers:
        chosen = next((p for p, fits in fitting.items() if name in fits), None)
        if chosen is not None:
            own[name] = wanted[chosen]
    return own


def share_out(text: str, sets: Sequence[UnitSet], sparsity: float, own: Mapping[str, float] | None = None) -> list[int]:
    """Units to remove per set under a registered scope; PluginError for counts that can't be.

    own: {parameter name: sparsity} of layers that the scope has no say in; of tied layers the lowest counts. A set
    never gets back what it has lost. Raises UsageError where a layer of `own` is in no set, so can't be pruned.
    """
    own = own or {}
    for name, value in own.items():
        if value > 0 and not any(name in s.names for s in sets):
            raise UsageError(f"{name} can't be pruned to {value:g} at this granularity; leave it out, or make it dense")
    apart = [min((own[n] for n in s.names if n in own), default=None) for s in sets]
    counts = iter(_asked(text, [s for s, a in zip(sets, apart, strict=True) if a is None], sparsity))
    fixed = iter(_fixed([(s, a) for s, a in zip(sets, apart, strict=True) if a is not None]))
    both = [next(counts if a is None else fixed) for a in apart]
    return [max(count, s.gone) for count, s in zip(both, sets, strict=True)]


def _check_total(plugin: str, sets: Sequence[UnitSet], counts: Sequence[int], sparsity: float) -> None:
    """PluginError where counts miss the total by more than rounding each layer to whole units explains."""
    from prunebench.masks import pruned_count

    ladders = [s.ladder.tolist() for s in sets]
    low = sum(ladder[s.gone] for s, ladder in zip(sets, ladders, strict=True))
    high = sum(ladder[s.most] for s, ladder in zip(sets, ladders, strict=True))
    wanted = min(max(pruned_count(sum(s.weights for s in sets), sparsity), low), high)
    removed = sum(ladder[min(max(c, s.gone), s.most)] for s, c, ladder in zip(sets, counts, ladders, strict=True))
    if abs(removed - wanted) > sum(int(s.costs.max()) for s in sets):
        raise PluginError(
            f"scope {plugin!r} removes {removed} weights where {wanted} were asked for; "
            "it shares the total among layers, it doesn't choose it"
        )


def _fixed(sets: Sequence[tuple[UnitSet, float]]) -> list[int]:
    from prunebench.sharing import alone

    return alone([s for s, _ in sets], [a for _, a in sets])


def _asked(text: str, sets: Sequence[UnitSet], sparsity: float) -> list[int]:
    if not sets:
        return []
    plugin, spec = get("scopes", text)
    before = [] if plugin.builtin else [s.scores.clone() for s in sets]
    try:
        given = list(plugin.bind(spec)(sets, sparsity))
        counts = [int(c) for c in given]
    except (PrunebenchError, Warning):  # a warning raised as an error is the caller's wish, no fault of the plugin
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"scope {plugin.name!r} raised: {reason(error)}") from error
    for scores, unit_set in zip(before, sets, strict=bool(before)):
        if not scores.equal(unit_set.scores):
            raise PluginError(f"scope {plugin.name!r} changed the scores of {unit_set.names[0]}; it only counts")
    if len(counts) != len(sets):
        raise PluginError(f"scope {plugin.name!r} returned {len(counts)} counts for {len(sets)} layers")
    for count, value, unit_set in zip(counts, given, sets, strict=True):
        if count != value:
            raise PluginError(
                f"scope {plugin.name!r} returned {value} for {unit_set.names[0]}; give a whole number of units"
            )
        if not 0 <= count <= unit_set.units:
            raise PluginError(f"scope {plugin.name!r} removes {count} of {unit_set.units} units of {unit_set.names[0]}")
    if not plugin.builtin:
        _check_total(plugin.name, sets, counts, sparsity)
    return counts
