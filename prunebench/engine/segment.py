"""A part of a network that runs natively: one C call per batch, plans made when a new input size comes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import nn

from prunebench.engine.choice import Choice
from prunebench.engine.emit import Emitter
from prunebench.engine.ir import Op, Shape, fuse
from prunebench.engine.native_loader import native
from prunebench.engine.planner import Planner
from prunebench.engine.tuner import tune

_MAX_PLANS = 12  # input sizes whose plans are kept


def settled(x: torch.Tensor) -> torch.Tensor:
    """x as the native code reads it: contiguous, on a whole number of floats."""
    x = x if x.is_contiguous() else x.contiguous()
    return x.clone() if x.data_ptr() % 4 else x


class Plan:
    """A native program for one input size and one number of images at a time."""

    def __init__(self, ops: list[Op], outputs: list[Op], shapes: list[Shape], chunk: int, threads: int, choice: Choice):
        planner = Planner(ops, outputs, shapes, chunk, choice.images)
        emitter = Emitter(planner, threads, choice)
        self.choice = choice
        self.layouts = tuple(s.out.layout for s in planner.steps)
        self.program, self.chunk, self.threads = emitter.program, chunk, emitter.threads
        self.sharing = emitter.sharing
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
        self.choices: dict[int, Choice] = {}  # by images at a time
        self.measure = False  # choose by measuring when the first plan is made
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
                    if self.measure and not self.plans:
                        self.choices[chunk] = tune(self, shapes, chunk)
                        for op in self.layers:
                            op.weights.restart()
                    found = self.draft(shapes, chunk, self.choices.get(chunk, Choice()))
                    for row in found.rows:
                        if "pack" in row:
                            row["op"].weights.settle(row["pack"])
                    for old in list(self.plans)[: 1 - _MAX_PLANS]:
                        self.plans.pop(old, None)
                    self.plans[key] = found
        return found

    def draft(self, shapes: tuple[Shape, ...], chunk: int, choice: Choice) -> Plan:
        """A plan that isn't kept; the weights stay open to other blocks."""
        return Plan(self.ops, self.outputs, list(shapes), chunk, self.threads, choice)

    def forward(self, *xs: torch.Tensor) -> Any:
        """The outputs: a tensor, or a tuple of them. ValueError: shapes the operations don't take."""
        n = xs[0].shape[0]
        xs = tuple(settled(x) for x in xs)
        for x, op in zip(xs, self.inputs, strict=True):
            if x.dtype != torch.float32 or x.dim() != (2 if op.flat else 4) or x.shape[0] != n:
                raise ValueError(f"an input of shape {tuple(x.shape)} and {x.dtype} between two parts of the model")
        return self.run(xs, n, self.shapes_of(xs))

    def shapes_of(self, xs: tuple[torch.Tensor, ...]) -> tuple[Shape, ...]:
        """Shape of an image of every input."""
        return tuple((x.shape[1], 1, 1) if x.dim() == 2 else (x.shape[1], x.shape[2], x.shape[3]) for x in xs)

    def parts(self, n: int, shapes: tuple[Shape, ...]) -> list[tuple[Plan, int, int]]:
        """(plan, how often it runs, images before it) for a batch of n; for an empty one a plan that runs never."""
        out, done = [], 0
        for chunk in self.chunks:
            if count := (n - done) // chunk:
                out.append((self.plans.get((shapes, chunk)) or self.plan(shapes, chunk), count, done))
                done += count * chunk
        return out or [(self.plan(shapes, 1), 0, 0)]

    def run(self, xs: tuple[torch.Tensor, ...], n: int, shapes: tuple[Shape, ...]) -> Any:
        """forward for checked, contiguous inputs of n images."""
        parts = self.parts(n, shapes)
        ys = tuple(
            xs[0].new_empty((n, s[0]) if op.flat else (n, *s))
            for op, s in zip(self.outputs, parts[0][0].shapes, strict=True)
        )
        for plan, count, done in parts if n else ():
            at = [t.data_ptr() + done * 4 * (t.numel() // n) for t in (*xs, *ys)]
            self._run(plan.program, count, plan.threads, None, *at)
        return ys[0] if len(ys) == 1 else ys

    def profile(self, xs: tuple[torch.Tensor, ...], rounds: int) -> list[tuple[Plan, np.ndarray, int]]:
        """Nanoseconds per operation of every plan that runs `xs`, the best of `rounds`; and how often it ran."""
        xs = tuple(settled(x) for x in xs)
        n, out = xs[0].shape[0], []
        ys = self.forward(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        for plan, count, done in self.parts(n, self.shapes_of(xs)) if n else ():
            at = [t.data_ptr() + done * 4 * (t.numel() // n) for t in (*xs, *ys)]
            best = np.full(max(1, len(plan.rows)), np.inf)
            for _ in range(rounds):
                ns = np.zeros(len(best))
                self._run(plan.program, count, plan.threads, ns, *at)
                best = np.minimum(best, ns)
            out.append((plan, best, count * plan.chunk))
        return out

    @property
    def nbytes(self) -> int:
        """Resident bytes of the weights."""
        return sum(w.nbytes for w in {id(op.weights): op.weights for op in self.layers}.values())
