"""Schedules: pure functions of progress t in [0, 1] to the share of the final sparsity, each with f(1) = 1.

A schedule whose path depends on the final sparsity takes it as a parameter called `sparsity`; it is filled in.
"""

from __future__ import annotations

import inspect
from itertools import pairwise

from prunebench.registry import get
from prunebench.schedules.agp import agp
from prunebench.schedules.cosine import cosine
from prunebench.schedules.geometric import geometric
from prunebench.schedules.linear import linear
from prunebench.schedules.one_shot import one_shot
from prunebench.schedules.polynomial import polynomial
from prunebench.spec import Spec

__all__ = ["agp", "check_path", "cosine", "geometric", "linear", "one_shot", "polynomial", "share"]

_STEPS = 20  # at which a path of others is looked at


def share(text: str | Spec, t: float, sparsity: float | None = None) -> float:
    """The registered schedule's share at progress t, checked to lie in [0, 1] and to end at exactly 1.

    sparsity: the final one, for schedules that ask for it (`geometric`); without it their own default holds.
    Raises UsageError for t outside [0, 1], PluginError for a schedule that leaves [0, 1] or misses 1 at the end.
    """
    from prunebench.errors import PluginError, PrunebenchError, UsageError, reason

    if not 0.0 <= t <= 1.0:
        raise UsageError(f"progress t={t} is outside [0, 1]")
    plugin, spec = get("schedules", text)
    try:
        asked = sparsity is not None and "sparsity" in inspect.signature(plugin.function).parameters
        given = {"sparsity": sparsity} if asked and "sparsity" not in dict(spec.params) else {}
        value = float(plugin.bind(spec)(t, **given))
    except PrunebenchError:
        raise
    except Exception as error:
        raise PluginError(f"schedule {plugin.name!r} raised at t={t}: {reason(error)}") from error
    if not 0.0 <= value <= 1.0:
        raise PluginError(f"schedule {plugin.name!r} returned {value} at t={t}; a share lies in [0, 1]")
    if t == 1.0 and value != 1.0:
        raise PluginError(f"schedule {plugin.name!r} ends at {value}, not at 1; the target would be missed")
    return value


def check_path(text: str | Spec, sparsity: float | None = None) -> None:
    """PluginError for a schedule of others that falls somewhere, or says something else when asked again."""
    from prunebench.errors import PluginError

    plugin, _ = get("schedules", text)
    if plugin.builtin:
        return
    times = [k / _STEPS for k in range(_STEPS + 1)]
    shares = [share(text, t, sparsity) for t in times]
    again = [share(text, t, sparsity) for t in reversed(times)][::-1]
    for t, first, second in zip(times, shares, again, strict=True):
        if first != second:
            raise PluginError(f"schedule {plugin.name!r} returned {first}, then {second} at t={t}; let t alone decide")
    for (start, before), (end, after) in pairwise(zip(times, shares, strict=True)):
        if after < before - 1e-9:
            raise PluginError(
                f"schedule {plugin.name!r} falls from {before} at t={start} to {after} at t={end}; "
                "what is pruned doesn't come back"
            )
