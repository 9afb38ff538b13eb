"""What watches a training for the criteria that ask for it, and how that outlives a kill.

An observer has observe() and renew(), called around every optimizer step, state() and restore(): see `movement`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Watching:
    """The observers of one pruner, told of every step together; None stands for a criterion that watches nothing."""

    def __init__(self, observers: Iterable[Any]) -> None:
        self._observers = list(observers)

    def observe(self) -> None:
        """After an optimizer step, before gradients are cleared and masks applied."""
        for watching in filter(None, self._observers):
            watching.observe()

    def renew(self) -> None:
        """The weights are other ones now: the next gradient is taken there."""
        for watching in filter(None, self._observers):
            watching.renew()

    def state(self) -> dict[str, Tensor]:
        """All that was summed so far, by name."""
        found = {}
        for i, watching in enumerate(self._observers):
            if watching is not None:
                found.update({f"{i}.{name}": t for name, t in watching.state().items()})
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; the model has its weights of then."""
        for i, watching in enumerate(self._observers):
            if watching is not None:
                prefix = f"{i}."
                watching.restore({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
