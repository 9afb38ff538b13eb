"""Roofs: what this machine's arithmetic reaches at most, measured in the same run as what is held against it."""

from __future__ import annotations

import math
import time

from prunebench import machine

ROOFS = ("l1", "l2", "dense")
_SIZE = 768  # rows and columns of the dense product: 7 MB in all, enough work to reach a library's best
_SECONDS = 0.3


def measure(threads: int = 1) -> dict[str, float | None]:
    """{"l1", "l2", "dense"}: GFLOP/s at `threads` threads, a multiply-add counted as two; None where unknown.

    l1, l2: multiply-adds with one memory operand each, from that cache, as an unstructured-sparse product needs them:
    the engine's own loop on one thread, times the threads, because these caches belong to a core. dense: torch's
    product of two float32 matrices, timed at `threads`.
    """
    from prunebench import engine

    cores = min(threads, machine.cores())
    native = _of_engine() if engine.available() is None else {}
    return {
        "l1": _scaled(native.get("l1"), cores),
        "l2": _scaled(native.get("l2"), cores),
        "dense": dense(threads),
    }


def dense(threads: int = 1, size: int = _SIZE, seconds: float = _SECONDS) -> float:
    """GFLOP/s of torch's float32 product of two (size, size) matrices: the best of calls that fill `seconds`."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    out = torch.empty(size, size)
    best = math.inf
    with machine.threads(threads), torch.inference_mode():
        torch.mm(a, b, out=out)
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            now = time.perf_counter()
            best = min(best, now - start)
            if now >= end:
                return 2 * size**3 / best / 1e9


def _of_engine() -> dict[str, float]:
    # Engines built before it had the loop have no such function.
    from prunebench.engine.native_loader import native

    loop = getattr(native(), "roofs", None)
    return dict(loop()) if loop is not None else {}


def _scaled(one: float | None, cores: int) -> float | None:
    return None if one is None else one * cores
