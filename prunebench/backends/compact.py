"""compact: filters and channels that are all zero physically removed, then the smaller network run dense."""

from __future__ import annotations

import time
import warnings
from typing import Any

from torch import Tensor, nn

from prunebench import backends, registry
from prunebench.compaction import CompactionWarning, Report, compact
from prunebench.errors import unknown
from prunebench.registry import backend
from prunebench.reparametrised import plain_copy

LAYOUTS = ("contiguous", "channels_last")
TRIAL_SECONDS = 0.2  # for choosing between two layouts, or three calls of each where that takes longer


def _check(backend: str, **_: Any) -> None:
    known = [name for name in registry.names("backends") if name != "compact"]
    if backend not in known:
        raise unknown("backend inside 'compact':", backend, known)


@backend("compact", check=_check)
class CompactExecutor:
    """`prunebench.compact`, then another backend: `compact:backend=csr` runs what is left through the sparse engine.

    dense: torch in the faster of its two layouts for this network and batch, as a dense network's baseline has it. A
    model that has nothing to remove runs as it is; `report` says what went.
    """

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1, backend: str = "dense") -> None:
        _check(backend)
        with warnings.catch_warnings():
            # In a grid most cells have nothing to remove; the report says so.
            warnings.simplefilter("ignore", CompactionWarning)
            small = compact(plain_copy(model), example_input)
        self.report: Report = small.compaction_report  # type: ignore[assignment]
        if backend == "dense":
            self.executor = _faster(small, example_input, threads)
        else:
            self.executor = backends.compile(small, example_input, backend, threads)

    def __call__(self, x: Tensor) -> Any:
        """The model's output for x, shape as model(x)."""
        return self.executor(x)

    @property
    def nbytes(self) -> int:
        """Resident bytes of the smaller network's weights."""
        return int(self.executor.nbytes)

    @property
    def threads(self) -> int:
        """Threads that it runs on."""
        return int(self.executor.threads)

    def summary(self) -> Any:
        """The layer table of the smaller network: its own shapes, and the sparsity that is left."""
        return self.executor.summary()

    @staticmethod
    def unavailable() -> str | None:
        return None


def _faster(model: nn.Module, x: Tensor, threads: int) -> Any:
    """The dense executor in the layout that is faster on this batch, by the best of alternating calls."""
    layouts = LAYOUTS if any(p.ndim == 4 for p in model.parameters()) else LAYOUTS[:1]
    candidates = [backends.compile(model, x, "dense", threads, layout=layout) for layout in layouts]
    if len(candidates) == 1:
        return candidates[0]
    best = [float("inf")] * len(candidates)
    for candidate in candidates:  # a first call sets up more than it runs
        candidate(x)
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < TRIAL_SECONDS:
        for i, candidate in enumerate(candidates):
            began = time.perf_counter()
            candidate(x)
            best[i] = min(best[i], time.perf_counter() - began)
        rounds += 1
    return candidates[best.index(min(best))]
