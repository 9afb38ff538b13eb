"""From a plan to a native program: memory, tables, register tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunebench.engine import tiles
from prunebench.engine.choice import Choice
from prunebench.engine.ir import Axis
from prunebench.engine.layout import LANES, coordinates, halo_entries, use_mask
from prunebench.engine.moves import fast_table, flat_table, map_table
from prunebench.engine.moves import source as origin
from prunebench.engine.native_loader import native
from prunebench.engine.planner import Planner
from prunebench.engine.schedule import Schedule, images_of
from prunebench.engine.steps import Step, Value

_KINDS = {"conv": 0, "dot": 1, "halo": 2, "move": 3, "window": 4, "sum": 5, "map": 6}  # native/program.h
_FUNCTIONS = {
    "copy": 0, "relu": 1, "relu6": 2, "hardswish": 3, "hardsigmoid": 4, "sigmoid": 5, "silu": 6, "leaky": 7, "add": 8,
    "mul": 9, "affine": 10,
}  # fmt: skip
_INF = float("inf")
_WORTH_SHARING = 8e-6  # seconds of an operation: below, passing maps from core to core costs more than a core gains
_VECTOR_SECONDS = 0.35e-9  # of a nonzero times a lane vector, about
_SHARED_DOT = 65536  # nonzeros of a matrix that threads share (native/rows.c)
_DOT_BLOCK = 4096  # columns whose products are added up in one go: longer sums lose digits


class Emitter:
    """Makes the native program of a finished plan."""

    def __init__(self, plan: Planner, threads: int, choice: Choice):
        self.plan, self.chunk, self.choice = plan, plan.chunk, choice
        schedule = Schedule(plan)
        self.steps, self.phases, self.where = schedule.steps, schedule.phases, schedule.where
        self.sharing = self._sharing(threads)
        self.threads = min(choice.threads or (threads if self.sharing >= 1 else 1), threads)
        self.shared, self.slot = schedule.shared, schedule.slot
        self.numbers: dict[Value, int] = {}
        self.table: list[list[int]] = []
        self.ops: list[tuple[Any, ...]] = []
        self.rows: list[dict[str, Any]] = []  # what the summary says, one per operation
        for phase, (first, end, groups) in enumerate(self.phases):
            self.parallel = groups >= self.threads
            for step in self.steps[first:end]:
                self.groups, self.phase = groups, phase
                ints, p, arrays, offsets = getattr(self, "_" + step.kind)(step)
                self.ops.append((_KINDS[step.kind], np.array(ints, np.int64), float(p), tuple(arrays), offsets))
        inputs = {v.port for s in self.steps for v in s.inputs if v.layout is None}
        outputs = {s.out.port for s in self.steps if s.out.output}
        self.program = native().program(
            self.chunk, self.shared, self.slot, max(inputs, default=-1) + 1, max(outputs, default=-1) + 1,
            np.array(self.table, np.int64).reshape(-1, 9), np.array(self.phases, np.int64).reshape(-1, 3), self.ops,
        )  # fmt: skip

    def _sharing(self, threads: int) -> float:
        """How much longer than worth while its operations are, where there are too few groups to go round."""
        alone = [s for first, end, groups in self.phases if groups < threads for s in self.steps[first:end]]
        seconds = sum(_VECTOR_SECONDS * _vectors(s) for s in alone)
        return seconds / (_WORTH_SHARING * len(alone)) if alone else float("inf")

    def number(self, v: Value) -> int:
        """The value's number in the program."""
        if v not in self.numbers:
            self.numbers[v] = len(self.table)
            if v.layout is None:
                c, h, w = v.shape
                self.table.append([3 if v.output else 2, 0, v.port, 0, 1, c, c * h * w, 1, 0])
            else:
                m = self.where[v.root]
                unit = 1 if v.layout.vector else m.cols * LANES
                kind = 1 if v.layout.vector else 0
                off = m.off + v.channel * unit
                self.table.append([kind, m.local, off, m.group, m.groups, v.shape[0], m.rows, m.cols, m.row])
        return self.numbers[v]

    # operations: integers, one float, arrays, offsets

    def _conv(self, step: Step) -> Any:
        op, x, out = step.op, step.inputs[0], step.out
        assert op is not None
        assert out.layout is not None
        w, point = op.weights, Axis(1, 1, 1, 0, 0)
        axes = (point, point) if step.attrs.get("point") else op.axes
        m, layout = self.where[x.root], out.layout
        rh, rw = layout.rh, layout.rw * layout.stack
        stride, dilation = (axes[0].stride, axes[1].stride), (axes[0].dilation, axes[1].dilation)
        most = w.chans
        while most > 1 and not w.fits(m.cols, m.row, dilation, most):
            most = most * 3 // 4
        if not w.fits(m.cols, m.row, dilation, w.block or most):
            raise ValueError(f"a map of {m.rows} x {m.cols} with {x.shape[0]} channels is too large for 16-bit offsets")
        widest = native().maxq()
        found = tiles.choose(rh, rw, w.taps, stride, w.chans, w.per_channel, widest, most, w.block)
        if stride[1] > 2:  # no kernel reads that far apart
            widest = tuple(min(q, 1) for q in widest)
        tiling = self.choice.of(op.name, found, rh, rw, w.block or most, widest)
        pack = w.pack(tiling.block)
        offsets = pack.offsets(m.cols, m.row, dilation)
        tile = tiles.tiles(rh, rw, tiling)
        parts = 1
        if self.threads > 1 and not self.parallel and w.nnz * rh * rw > 2000:
            count = len(tile) // 4
            while count * parts < 4 * self.threads and w.rows // (parts * 2) >= 8:
                parts *= 2
        n = [self.number(x), self.number(out), -1]
        at = [m.pads[0] - axes[0].before, m.pads[2] - axes[1].before, *self.where[out.root].origin, 0, 0]
        if len(step.inputs) > 1:
            n[2] = self.number(step.inputs[1])
            at[4:] = self.where[step.inputs[1].root].origin
        hi = op.attrs.get("hi", _INF)
        relu = int(bool(op.attrs.get("relu")))
        self.rows.append(
            {"op": op, "tile": f"{tiling.rows}x{tiling.cols}", "pack": pack, "tiling": tiling, "layout": layout.words()}
        )
        return [*n, *at, rh, rw, *stride, relu, int(hi != _INF)], hi, [w.bias, tile, w.parts(parts)], offsets

    def _dot(self, step: Step) -> Any:
        op = step.op
        assert op is not None
        w = op.weights
        columns = w.by_columns and (self.threads == 1 or w.nnz < _SHARED_DOT)  # columns aren't shared among threads
        pack = w.columns() if columns else w.pack(max(1, min(w.chans, _DOT_BLOCK)))
        n = [
            self.number(step.inputs[0]),
            self.number(step.out),
            self.number(step.inputs[1]) if len(step.inputs) > 1 else -1,
        ]
        hi = op.attrs.get("hi", _INF)
        relu = int(bool(op.attrs.get("relu")))
        self.rows.append({"op": op, "tile": "column" if columns else "row", "pack": pack, "layout": "vector"})
        return [*n, int(columns), *[0] * 9, relu, int(hi != _INF)], hi, [w.bias], pack.offsets(1, 1, (1, 1))

    def _halo(self, step: Step) -> Any:
        v = step.out
        assert v.layout is not None
        m = self.where[v.root]
        # the entries are for this value's own pads, inside what the memory has room for
        entries, masks = halo_entries(v.layout, *v.shape[1:], tuple(m.pads), m.row)  # type: ignore[arg-type]
        self.rows.append({"op": None, "what": "halo"})
        return [self.number(v)], v.fill, [entries, masks], None

    def _move(self, step: Step) -> Any:
        source, out = step.inputs[0], step.out
        c, h, w = source.shape
        at, sc = origin(source, self.where.get(source.root))
        images = images_of(step)
        dst = np.zeros(self.groups, np.int64)
        fill = out.fill
        if out.layout is None:
            n, y, x = (a.reshape(-1) for a in np.meshgrid(np.arange(images), np.arange(h), np.arange(w), indexing="ij"))
            table, dr, size, dy, dc = at(n, y, x), images, h * w, c * h * w, h * w
            dst += np.arange(self.groups) * images * c * h * w
        else:
            m = self.where[out.root]
            dst += np.arange(self.groups) * m.group
            unit = m.cols * LANES
            if out.layout.vector:
                y, x = (a.reshape(-1) for a in np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
                table, dr, size, dy, dc = at(0 * y, y, x), 1, h * w, 0, h * w
            elif step.attrs.get("flatten"):
                table, dr, size, dy, dc = flat_table(at, out.layout, h, w), 1, h * w * unit, 0, h * w * unit
            else:
                table, first = map_table(at, step, out.layout, m)
                dr, size = table.shape
                dy, dc, dst = m.row * LANES, unit, dst + first
        numbers, count, pairs = np.asarray(table).reshape(-1), 0, 0
        if out.layout is not None and not out.layout.vector:
            inside = source.layout is not None and not source.layout.vector
            numbers, count, pairs = fast_table(numbers.reshape(dr, -1), dy, inside)
        src = np.array([at(g * images, 0, 0) - at(0, 0, 0) for g in range(self.groups)], np.int64)
        channels = step.attrs.get("channels")
        self.rows.append({"op": None, "what": "move"})
        arrays = [np.ascontiguousarray(numbers, np.int32), src, dst]
        arrays += [None if channels is None else np.array(channels, np.int32)]
        return [self.number(source), self.number(out), dr, c, size, dy, dc, sc, count, pairs], fill, arrays, None

    def _window(self, step: Step) -> Any:
        x, out = step.inputs[0], step.out
        assert step.op is not None
        assert out.layout is not None
        axes, layout, m = step.attrs["axes"], out.layout, self.where[x.root]
        mult = None
        if step.op.mode == "average":
            ys, xs = (_counts(a, size, step.op.include_pad) for a, size in zip(axes, step.attrs["size"], strict=True))
            factors = np.zeros((layout.rh, layout.rw, LANES), np.float32)
            for y in range(layout.rh):
                for i in range(layout.rw):
                    row, col, _ = coordinates(layout, y, i)
                    factors[y, i] = 1.0 / (ys[np.minimum(row, len(ys) - 1)] * xs[np.minimum(col, len(xs) - 1)])
            mult = factors.reshape(-1)
        at = [m.pads[0] - axes[0].before, m.pads[2] - axes[1].before, *self.where[out.root].origin]
        a, b = axes
        ints = [
            self.number(x),
            self.number(out),
            *at,
            layout.rh,
            layout.rw,
            a.taps,
            b.taps,
            a.stride,
            b.stride,
            a.dilation,
            b.dilation,
        ]
        self.rows.append({"op": None, "what": "pool"})
        return ints, 0.0, [mult], None

    def _sum(self, step: Step) -> Any:
        x = step.inputs[0]
        assert x.layout is not None
        _, h, w = x.shape
        at = self.where[x.root].origin
        self.rows.append({"op": None, "what": "mean"})
        ints = [self.number(x), self.number(step.out), *at, x.layout.rh, x.layout.rw, x.layout.images, x.layout.per]
        return ints, 1.0 / (h * w), [use_mask(x.layout, h, w)], None

    def _map(self, step: Step) -> Any:
        op, x, out = step.op, step.inputs[0], step.out
        assert out.layout is not None
        second = step.inputs[1] if len(step.inputs) > 1 else None
        kind = "copy" if op is None else "mul" if op.kind == "gate" else str(op.attrs.get("fn", op.kind))
        gate = op is not None and op.kind == "gate" and out.shape[1:] != (1, 1)
        plus = (0, 0) if second is None or gate else self.where[second.root].origin
        rows, cols = out.layout.rh, out.layout.rw * out.layout.stack
        n = [self.number(x), self.number(out), _FUNCTIONS[kind], -1 if second is None else self.number(second)]
        at = [*self.where[x.root].origin, *plus, *self.where[out.root].origin]
        ints = [*n, *at, rows, cols, int(gate), out.layout.images, out.layout.per]
        scale, shift = (op.scale, op.shift) if op is not None and kind == "affine" else (None, None)
        self.rows.append({"op": None, "what": kind})
        return ints, 0.0 if op is None else op.attrs.get("slope", 0.0), [scale, shift], None


def _vectors(step: Step) -> int:
    """Nonzeros times lane vectors of a layer, times numbers at batch 1 (which take as long); 0 for other steps."""
    layout = step.out.layout
    if step.kind not in ("conv", "dot") or step.op is None or layout is None:
        return 0
    return int(step.op.weights.nnz) * (1 if step.kind == "dot" else layout.rh * layout.rw * layout.stack)


def _counts(axis: Axis, size: int, include_pad: bool) -> np.ndarray:
    """Inputs that each output of an average divides by, as torch counts them."""
    start = np.arange(axis.output(size)) * axis.stride - axis.before
    end = np.minimum(start + axis.taps, size + axis.after)
    if not include_pad:
        start, end = np.maximum(start, 0), np.minimum(end, size)
    return np.maximum(end - start, 1).astype(np.float32)
