"""Chooses by measuring: layouts for a network as a whole, then a register tile for every layer, as FFTW plans."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from prunebench.engine.choice import Choice
from prunebench.engine.ir import Shape
from prunebench.engine.layout import SIZES
from prunebench.engine.native_loader import native

if TYPE_CHECKING:
    from prunebench.engine.segment import Plan, Segment

# Allowed numbers of images in lanes: the model's choice, all images of a group, one only, and between
_POLICIES: tuple[tuple[int, ...], ...] = (SIZES, (16,), (1, 16), (4, 16), (8, 16), (4,), (2, 8))
_SECONDS = 5.0  # no new candidate is tried after that
_ROUND = 0.02  # seconds of one measurement at most, at least one run
_RUNS = 50  # enough of short ones
_BETTER = 0.97  # a layer's tile changes only for so much
_DOUBT = 3.0  # times longer or shorter than the model's limit
_MOST_KNOWN = 256
_known: dict[str, Choice] = {}  # of this process: the same layers on the same machine are not measured again


class _Bench:
    """Runs plans of one segment on inputs of its own."""

    def __init__(self, segment: Segment, shapes: tuple[Shape, ...], chunk: int):
        g = np.random.default_rng(0)
        self.xs = [g.standard_normal((chunk, int(np.prod(s))), np.float32) for s in shapes]
        self.ys: list[np.ndarray] = []

    def _run(self, plan: Plan, ns: np.ndarray | None) -> None:
        if not self.ys:
            self.ys = [np.empty((plan.chunk, int(np.prod(s))), np.float32) for s in plan.shapes]
        native().run(plan.program, 1, plan.threads, ns, *[a.ctypes.data for a in (*self.xs, *self.ys)])

    def seconds(self, plan: Plan) -> float:
        """The fastest of some runs."""
        best, until = float("inf"), time.perf_counter() + _ROUND
        for _ in range(_RUNS):
            start = time.perf_counter()
            self._run(plan, None)
            end = time.perf_counter()
            best = min(best, end - start)
            if end > until:
                break
        return best

    def layers(self, plan: Plan) -> dict[str, float]:
        """Nanoseconds of every layer, the fastest of some runs."""
        best = np.full(len(plan.rows), np.inf)
        until = time.perf_counter() + _ROUND
        for _ in range(_RUNS):
            ns = np.zeros(len(plan.rows))
            self._run(plan, ns)
            best = np.minimum(best, ns)
            if time.perf_counter() > until:
                break
        return {r["op"].name: float(t) for r, t in zip(plan.rows, best, strict=True) if r["op"] is not None}


def _signature(segment: Segment, shapes: tuple[Shape, ...], chunk: int) -> str:
    ops = [
        (op.kind, op.name, getattr(op.attrs.get("weights"), "shape", None), str(op.attrs.get("axes")))
        for op in segment.ops
    ]
    nonzeros = [op.weights.nnz for op in segment.layers]
    return repr((native().isa(), segment.threads, shapes, chunk, ops, nonzeros))


def tune(segment: Segment, shapes: tuple[Shape, ...], chunk: int) -> Choice:
    """The fastest choice found for `chunk` images of these shapes; remembered for the process."""
    key = _signature(segment, shapes, chunk)
    if key in _known:
        return _known[key]
    start = time.perf_counter()
    bench = _Bench(segment, shapes, chunk)
    tried: dict[tuple, Plan] = {}
    times: dict[tuple, float] = {}
    for images in _POLICIES:
        if time.perf_counter() - start > _SECONDS and tried:
            break
        try:
            plan = segment.draft(shapes, chunk, Choice(images))
        except ValueError:  # whole images in a lane can be too much for 16-bit offsets where regions aren't
            if images == SIZES:
                raise
            continue
        if plan.layouts not in tried:
            tried[plan.layouts] = plan
    for _ in range(3):
        for layouts, plan in tried.items():
            times[layouts] = min(times.get(layouts, float("inf")), bench.seconds(plan))
    best = tried[min(times, key=times.__getitem__)]
    images = best.choice.images
    chosen: dict[str, tuple[float, Plan]] = {}
    plans = [best]
    for variant in (1, 2, 3, 4):
        if time.perf_counter() - start < _SECONDS:
            plans.append(segment.draft(shapes, chunk, Choice(images, variant=variant)))
    for _ in range(3):
        for plan in plans:
            for name, ns in bench.layers(plan).items():
                have = chosen.get(name)
                better = have is None or ns < have[0] * (1.0 if have[1] is plan else _BETTER)
                if better:
                    chosen[name] = (ns, plan)
    tiles = {}
    for name, (_, plan) in chosen.items():
        tiling = next(
            (r["tiling"] for r in plan.rows if r["op"] is not None and r["op"].name == name and "tiling" in r), None
        )
        if tiling is not None:
            tiles[name] = (tiling.rows, tiling.cols, tiling.block)
    for old in list(_known)[: 1 - _MOST_KNOWN]:
        _known.pop(old, None)
    _known[key] = Choice(images, tiles, threads=_threads(segment, shapes, chunk, bench, Choice(images, tiles)))
    return _known[key]


def _threads(segment: Segment, shapes: tuple[Shape, ...], chunk: int, bench: _Bench, choice: Choice) -> int:
    """All threads or one, whichever is faster: short operations on two cores wait for each other's lines.

    Measured only where the model is in doubt: another process on the second core would decide for one thread for good.
    """
    sharing = segment.draft(shapes, chunk, choice).sharing
    if segment.threads == 1 or not 1 / _DOUBT < sharing < _DOUBT:
        return 0
    plans = [segment.draft(shapes, chunk, replace(choice, threads=n)) for n in (1, segment.threads)]
    alone, shared = (min(bench.seconds(p) for _ in range(3)) for p in plans)
    return 1 if alone < shared else segment.threads
