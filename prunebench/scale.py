"""What a grid costs before anything is trained: worker-hours, how long it takes on so many workers, bytes.

Time without interruptions lies between Graham's bounds ("Bounds on Multiprocessing Timing Anomalies", 1969) for any
executor that leaves no worker idle while a task is ready. Interruptions are exponential: a task's state is kept every
so often, and what was done since is lost (Daly 2006, "A higher order estimate of the optimum checkpoint interval",
equation 20's term for a segment).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

COMPRESSED_FROM = 0.5  # sparsity from which a weight is stored as a bit and, where it stays, its value
VALUE_BYTES = 4
ROW_BYTES = 8  # of a compressed weight: where each row begins
PART_BYTES = 90  # of each tensor in the file: its name, type and place in the header


@dataclass(frozen=True)
class Work:
    """One checkpoint: seconds of training without interruption, bytes stored, and which ones (by index) come before."""

    seconds: float
    stored_bytes: float = 0.0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """Workers and what goes wrong: seconds lost per task in any case (a start, reading its parent, publishing),
    interruptions per worker and hour, seconds until an interrupted task runs again, seconds between two kept states.
    """

    workers: int = 1
    task_seconds: float = 0.0
    interruptions_per_hour: float = 0.0
    restart_seconds: float = 0.0
    keep_seconds: float = 30.0

    def occupied(self, seconds: float) -> float:
        """Seconds that a task of so many is expected to hold a worker, repeated work and restarts included."""
        if self.interruptions_per_hour == 0.0:
            return self.task_seconds + seconds
        first = min(seconds, self.keep_seconds)  # nothing is kept before it, so a start is part of it
        segments, last = divmod(seconds - first, self.keep_seconds)
        whole = segments * self._segment(self.keep_seconds)
        return self._segment(self.task_seconds + first) + whole + self._segment(last)

    def _segment(self, seconds: float) -> float:
        # Expected time until `seconds` pass undisturbed; a restart itself isn't interrupted.
        rate = self.interruptions_per_hour / 3600
        return math.expm1(rate * seconds) * (1 / rate + self.restart_seconds)


@dataclass(frozen=True)
class Estimate:
    """worker_seconds: of all tasks; the last ends between `low` and `high` seconds; stored_bytes: of checkpoints."""

    checkpoints: int
    worker_seconds: float
    low: float
    high: float
    stored_bytes: float

    @property
    def seconds(self) -> float:
        """The middle of the bounds."""
        return (self.low + self.high) / 2

    @property
    def bound(self) -> float:
        """How far off the middle can be, as a share of it."""
        return (self.high - self.low) / (self.high + self.low) if self.high else 0.0


def estimate(works: Sequence[Work], fleet: Fleet) -> Estimate:
    """What works cost on a fleet; each stands after those that it names, or IndexError. Linear in their number."""
    ends: list[float] = []
    for work in works:
        ends.append(fleet.occupied(work.seconds) + max((ends[i] for i in work.after), default=0.0))
    total = sum(fleet.occupied(work.seconds) for work in works)
    chain = max(ends, default=0.0)
    low = max(total / fleet.workers, chain)
    high = total / fleet.workers + (1 - 1 / fleet.workers) * chain
    return Estimate(len(works), total, low, high, sum(work.stored_bytes for work in works))


def checkpoint_bytes(shapes: Mapping[str, Sequence[int]], prunable: Collection[str], sparsity: float) -> float:
    """Bytes of a stored checkpoint whose prunable weights are zero to this share, all layers alike.

    shapes: of every tensor of the state, by name. Other scopes move zeros between layers: the sum stays the same but
    for layers that fall below half zero and are stored whole.
    """
    total = 0.0
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        if name in prunable and sparsity >= COMPRESSED_FROM:
            rows = shape[0]
            mask = rows * math.ceil(numbers / rows / 8)
            total += VALUE_BYTES * numbers * (1 - sparsity) + mask + ROW_BYTES * rows + 4 * PART_BYTES
        else:
            total += VALUE_BYTES * numbers + PART_BYTES
    return total
