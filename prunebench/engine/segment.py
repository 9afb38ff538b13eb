"""A part of a network that runs natively: one C call per batch, plans made when a new input size comes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import nn

from prunebench.engine.emit import Emitter
from prunebench.engine.ir import Op, Shape, fuse
from prunebench.engine.native_loader import native
from prunebench.engine.planner import Planner

_MAX_PLANS = 12  # input sizes whose plans are kept


class Plan:
    """A native program for one input size and one number of images at a time."""

    def __init__(self, ops: list[Op], outputs: list[Op], shapes: list[Shape], chunk: int, threads: int):
        planner = Planner(ops, outputs, shapes, chunk)
        emitter = Emitter(planner, threads)
        self.program, self.chunk = emitter.program, chunk
        self.rows, self.steps = emitter.rows, emitter.steps
        self.arena = (emitter.shared + emitter.slot) * 4
        self.sizes = planner.shapes
        self.shapes = [planner.shapes[op] for op in outputs]


class Segment(nn.Module):
    """Runs `ops` from the segment's inputs to `outputs`; (N, C, H, W) or (N, F) float32 tensors in and out."""

    def __init__(self, ops: list[Op], outputs: list[Op], threads: int):
        super().__init__()
        self.ops, self.outputs = fuse(ops, outputs)
        self.inputs = [op for op in self.ops if op.kind == "input"]
        self.threads = threads
        self.layers = [op for op in self.ops if op.kind in ("conv", "linear")]
        head = sum(op.weights.nnz for op in self.layers if op.kind == "linear")
        # linear layers want several lane vectors of images at a time, maps run best few images at a time
        self.chunks = (64, 16, 4, 1) if head * 4 > sum(op.weights.nnz for op in self.layers) else (16, 4, 1)
        self.plans: dict[Any, Plan] = {}
        self._lock = threading.Lock()
        self._run = native().run

    def plan(self, shapes: tuple[Shape, ...], chunk: int) -> Plan:
        """The plan for images of these shapes, `chunk` of them at a time; made once."""
        key = (shapes, chunk)
        found = self.plans.get(key)
        if found is None:
            with self._lock:
                found = self.plans.get(key)
                if found is None:
                    found = Plan(self.ops, self.outputs, list(shapes), chunk, self.threads)
                    for old in list(self.plans)[: 1 - _MAX_PLANS]:
                        self.plans.pop(old, None)
                    self.plans[key] = found
        return found

    def forward(self, *xs: torch.Tensor) -> Any:
        """The outputs: a tensor, or a tuple of them. ValueError: shapes the operations don't take."""
        n = xs[0].shape[0]
        xs = tuple(x if x.is_contiguous() else x.contiguous() for x in xs)
        for x, op in zip(xs, self.inputs, strict=True):
            if x.dtype != torch.float32 or x.dim() != (2 if op.flat else 4) or x.shape[0] != n:
                raise ValueError(f"an input of shape {tuple(x.shape)} and {x.dtype} between two parts of the model")
        return self.run(xs, n, self.shapes_of(xs))

    def shapes_of(self, xs: tuple[torch.Tensor, ...]) -> tuple[Shape, ...]:
        """Shape of an image of every input."""
        return tuple((x.shape[1], 1, 1) if x.dim() == 2 else (x.shape[1], x.shape[2], x.shape[3]) for x in xs)

    def run(self, xs: tuple[torch.Tensor, ...], n: int, shapes: tuple[Shape, ...]) -> Any:
        """forward for checked, contiguous inputs of n images."""
        done, ys = 0, None
        for chunk in self.chunks:
            count = (n - done) // chunk
            if not count and (ys is not None or chunk > 1):
                continue
            plan = self.plans.get((shapes, chunk)) or self.plan(shapes, chunk)
            if ys is None:
                ys = [
                    torch.empty((n, s[0]) if op.flat else (n, *s), dtype=torch.float32, device="cpu")
                    for op, s in zip(self.outputs, plan.shapes, strict=True)
                ]
            if count:
                at = [t.data_ptr() + done * 4 * (t.numel() // n) for t in (*xs, *ys)]
                self._run(plan.program, count, self.threads, None, *at)
                done += count * chunk
            if done == n:
                break
        assert ys is not None
        return ys[0] if len(ys) == 1 else tuple(ys)

    def profile(self, xs: tuple[torch.Tensor, ...], rounds: int) -> list[tuple[Plan, np.ndarray, int]]:
        """Nanoseconds per operation of every plan that runs `xs`, the best of `rounds`; and how often it ran."""
        n, done, out = xs[0].shape[0], 0, []
        shapes = self.shapes_of(xs)
        ys = self.forward(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        xs = tuple(x.contiguous() for x in xs)
        for chunk in self.chunks:
            count = (n - done) // chunk
            if not count:
                continue
            plan = self.plan(shapes, chunk)
            at = [t.data_ptr() + done * 4 * (t.numel() // n) for t in (*xs, *ys)]
            best = None
            for _ in range(rounds):
                ns = np.zeros(max(1, len(plan.rows)))
                self._run(plan.program, count, self.threads, ns, *at)
                best = ns if best is None else np.minimum(best, ns)
            assert best is not None
            out.append((plan, best, count * chunk))
            done += count * chunk
        return out

    @property
    def nbytes(self) -> int:
        """Resident bytes of the weights."""
        return sum(w.nbytes for w in {id(op.weights): op.weights for op in self.layers}.values())
