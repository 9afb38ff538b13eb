"""The bench that measures the cases of a question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunebench.measuring.grid import Bench


def bench_of(question: str, seconds: float) -> Any:
    """The bench of a question beside the grid; seconds: budget of one measurement."""
    if question == "layers":
        from prunebench.measuring.layers import LayerBench

        return LayerBench(seconds)
    if question == "claims":
        from prunebench.measuring.claims import ClaimBench

        return ClaimBench(seconds)
    from prunebench.measuring.networks import NetworkBench

    return NetworkBench(seconds)


def grid_bench(
    store: str, data: str, threads: int, seconds: float, device: str, logs: str | None, tensorboard: bool,
    tell: Callable[..., None], said: Callable[..., None],
) -> Bench:  # fmt: skip
    """The grid's, from plain values; tell, said: as a Lab's."""
    from prunebench.measuring.grid import Bench
    from prunebench.pipeline import Lab
    from prunebench.store import Store

    folder = None if logs is None else Path(logs)
    lab = Lab(Store(store), Path(data), tell, said, device=device, logs=folder, tensorboard=tensorboard)
    return Bench(lab, threads, seconds)
