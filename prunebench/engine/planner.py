"""The plan of a network for one chunk size: a layout for every value, moves between layouts, phases, one arena."""

from __future__ import annotations

from typing import Any

from prunebench.engine.ir import Axis, Op, Shape, bins, shape_of
from prunebench.engine.layout import LANES, SIZES, Layout, best_layout, cost, flat_layout
from prunebench.engine.steps import Step, Value

Axes = tuple[Axis, Axis]
_WORSE = 1.1  # a layout that follows from the input's is kept up to this much above the best one's cost


def _before(layout: Layout, axes: Axes) -> Layout:
    """The layout of a map whose windows make `layout`: the same lanes, regions as many times larger as the strides."""
    return Layout(layout.images, layout.gy, layout.gx, layout.rh * axes[0].stride, layout.rw * axes[1].stride)


class Planner:
    """Goes through the operations once, in order, and makes steps."""

    def __init__(
        self, ops: list[Op], outputs: list[Op], shapes: list[Shape], chunk: int, allowed: tuple[int, ...] = SIZES
    ):
        self.chunk, self.allowed = chunk, allowed
        self.steps: list[Step] = []
        self.values: dict[Op, Value] = {}
        self.levels: dict[tuple[int, int], Layout] = {}
        self.moved: dict[tuple[int, Any], Value] = {}
        self.shapes: dict[Op, Shape] = {}
        self.gated = self._gates(ops)
        ports = iter(range(len(shapes)))
        for op in ops:
            self.shapes[op] = shapes[port := next(ports)] if op.kind == "input" else shape_of(
                op, [self.shapes[i] for i in op.inputs]
            )  # fmt: skip
            if op.kind == "input":
                self.values[op] = Value(self.shapes[op], None, port, flat=op.flat)
            else:
                self.values[op] = getattr(self, "_" + op.kind)(op)
        for number, op in enumerate(outputs):
            out = Value(self.shapes[op], None, number, output=True, flat=op.flat)
            self.steps.append(Step("move", None, [self._inside(self.values[op])], out))

    def _gates(self, ops: list[Op]) -> set[Op]:
        """Values without a map that end up as factors of a map: they stay with the images of that map."""
        found: set[Op] = set()
        for op in reversed(ops):
            if op.kind == "gate":
                found.add(op.inputs[1])
            elif op in found and op.kind not in ("mean", "window", "input"):
                found.update(op.inputs)
        return found

    # layouts

    def level(self, h: int, w: int) -> Layout:
        """The layout of maps of this size unless something else follows from an input."""
        if (h, w) not in self.levels:
            self.levels[h, w] = best_layout(min(self.chunk, LANES), h, w, self.allowed)
        return self.levels[h, w]

    def flat(self, op: Op, like: Value | None = None) -> Layout:
        """The layout of a value without a map."""
        if op in self.gated and like is not None and like.layout is not None:
            return flat_layout(like.layout.images * like.layout.stack)
        return flat_layout(self.chunk)

    def following(self, value: Value, axes: Axes, h: int, w: int) -> Layout:
        """The layout of a map of h x w made from `value` by windows: the input's own, shrunk, if that is good."""
        have, key = value.layout, (h, w)
        if have is not None and not have.vector and have.stack == 1 and value.shape[1:] != (1, 1):
            sy, sx = axes[0].stride, axes[1].stride
            if have.rh % sy == 0 and have.rw % sx == 0:
                own = Layout(have.images, have.gy, have.gx, have.rh // sy, have.rw // sx)
                best = self.levels.get(key) or best_layout(min(self.chunk, LANES), h, w, self.allowed)
                if own.owns(h, w) and (own == best or cost(own, h, w) <= _WORSE * cost(best, h, w)):
                    return self.levels.setdefault(key, own) if key not in self.levels or own == best else best
        return self.level(h, w)

    def moved_to(self, value: Value, layout: Layout, fill: float = 0.0, axes: Axes | None = None,
                 pads: list[int] | None = None) -> Value:  # fmt: skip
        """`value` in another layout; with axes and pads: its halos come from the map, not from the lanes."""
        key = (id(value), (layout, fill, axes and (axes[0].mode, axes[1].mode), tuple(pads) if pads else None))
        if key not in self.moved:
            new = Value(value.shape, layout, fill=fill, flat=value.flat, positive=value.positive)
            extra: dict[str, Any] = {}
            if pads is not None and axes is not None:
                new.pads = list(pads)
                extra = {"modes": (axes[0].mode, axes[1].mode), "whole": True}
            self.steps.append(Step("move", None, [value], new, extra))
            self.moved[key] = new
            self.moved[id(new), "keep"] = value  # an id is only unique while its object lives
        return self.moved[key]

    def read(self, value: Value, layout: Layout, axes: Axes | None = None, fill: float = 0.0) -> Value:
        """`value` as an operation with the output regions `layout` reads it: right regions, enough halo."""
        if axes is None:
            return value if value.layout == layout else self.moved_to(value, layout)
        pads: list[int] = []
        for axis, count in zip(axes, (layout.rh, layout.rw), strict=True):
            region = axis.stride * count
            after = (count - 1) * axis.stride - axis.before + axis.reach - region
            pads += [axis.before, max(0, after)]
        want = _before(layout, axes)
        padded = any(pads)
        plain = all(a.mode == "zeros" for a in axes)
        owned = want.owns(*value.shape[1:])
        if value.layout == want and plain and (owned or not padded):
            if not padded:
                return value
            if not any(value.pads) or value.fill == fill:
                value.fill = fill
                self._pad(value, pads)
                return value
        if plain and owned and padded:
            new = self.moved_to(value, want, fill)
            self._pad(new, pads)
            return new
        return self.moved_to(value, want, fill, axes, pads)

    @staticmethod
    def _pad(value: Value, pads: list[int]) -> None:
        value.pads = [max(a, b) for a, b in zip(value.pads, pads, strict=True)]

    # operations

    def _conv(self, op: Op) -> Value:
        x = self.values[op.inputs[0]]
        _, h, w = shape = self.shapes[op]
        point = all(a.taps == 1 and a.before == a.after == 0 for a in op.axes)
        if shape[1:] == (1, 1) and x.shape[1:] == (1, 1) and point:
            return self._product(op, x, shape)
        layout = self.following(x, op.axes, h, w)
        strides = (op.axes[0].stride, op.axes[1].stride)
        thin = point and strides != (1, 1) and x.layout != _before(layout, op.axes)
        # a strided 1 x 1 convolution of what has to be moved anyway: only the pixels it reads
        x = self._thinned(x, layout, strides, (h, w)) if thin else self.read(x, layout, op.axes)
        inputs = [x]
        if len(op.inputs) > 1:
            inputs.append(self.read(self.values[op.inputs[1]], layout))
        out = Value(shape, layout, positive=bool(op.attrs.get("relu")))
        self.steps.append(Step("conv", op, inputs, out, {"point": True} if thin else {}))
        return out

    def _thinned(self, value: Value, layout: Layout, strides: tuple[int, int], size: tuple[int, int]) -> Value:
        new = Value((value.shape[0], *size), layout, positive=value.positive)
        self.steps.append(Step("move", None, [value], new, {"stride": strides}))
        return new

    def _product(self, op: Op, x: Value, shape: Shape) -> Value:
        """A linear layer, or a convolution of one pixel."""
        layout = x.layout if x.layout is not None and op in self.gated else self.flat(op)
        inputs = [x if x.layout == layout else self.moved_to(x, layout)]
        if len(op.inputs) > 1:
            inputs.append(self.read(self.values[op.inputs[1]], layout))
        out = Value(shape, layout, flat=op.flat, positive=bool(op.attrs.get("relu")))
        kind = "dot" if layout.vector and op.weights.groups == 1 else "conv"
        if kind == "conv" and layout.vector:  # grouped: as a map of one pixel
            layout = Layout(1, 1, 1, 1, 1)
            inputs = [self.moved_to(v, layout) for v in inputs]
            out.layout = layout
        self.steps.append(Step(kind, op, inputs, out, {"point": True}))
        return out

    def _linear(self, op: Op) -> Value:
        x = self.values[op.inputs[0]]
        if x.shape[1:] != (1, 1):
            x = self._flattened(op, x)
        return self._product(op, x, self.shapes[op])

    def _flattened(self, op: Op, x: Value) -> Value:
        c, h, w = x.shape
        if (h, w) == (1, 1):
            return x
        out = Value((c * h * w, 1, 1), self.flat(op), flat=True, positive=x.positive)
        self.steps.append(Step("move", op, [x], out, {"flatten": True}))
        return out

    def _flatten(self, op: Op) -> Value:
        x = self.values[op.inputs[0]]
        if x.layout is None and x.flat:
            return x
        if x.layout is None or x.shape[1:] != (1, 1):
            if x.shape[1:] == (1, 1):
                return self.moved_to(x, self.flat(op))
            return self._flattened(op, x)
        return x

    def _inside(self, value: Value) -> Value:
        """An input of the segment as a value in the arena."""
        if value.layout is not None:
            return value
        point = value.shape[1:] == (1, 1)
        return self.moved_to(value, flat_layout(self.chunk) if point else self.level(*value.shape[1:]))

    def _elementwise(self, op: Op, inputs: list[Value], positive: bool) -> Value:
        x = inputs[0]
        assert x.layout is not None
        out = Value(x.shape, x.layout, flat=op.flat, positive=positive)
        self.steps.append(Step("map", op, inputs, out))
        return out

    def _act(self, op: Op) -> Value:
        return self._elementwise(
            op, [self._inside(self.values[op.inputs[0]])], op.fn in ("relu", "relu6", "sigmoid", "hardsigmoid")
        )

    def _affine(self, op: Op) -> Value:
        return self._elementwise(op, [self._inside(self.values[op.inputs[0]])], False)

    def _add(self, op: Op) -> Value:
        x, y = (self._inside(self.values[i]) for i in op.inputs)
        assert x.layout is not None
        return self._elementwise(op, [x, self.read(y, x.layout)], x.positive and y.positive)

    _mul = _add

    def _gate(self, op: Op) -> Value:
        x = self._inside(self.values[op.inputs[0]])
        factor = self.values[op.inputs[1]]
        assert x.layout is not None
        want = x.layout if x.shape[1:] == (1, 1) else flat_layout(x.layout.images)
        factor = factor if factor.layout == want else self.moved_to(factor, want)
        return self._elementwise(op, [x, factor], x.positive and factor.positive)

    def _cat(self, op: Op) -> Value:
        parts = [self._inside(self.values[i]) for i in op.inputs]
        layout = parts[0].layout
        assert layout is not None
        out = Value(self.shapes[op], layout, flat=op.flat, positive=all(p.positive for p in parts))
        at = 0
        for part in parts:
            place = Value(part.shape, layout, parent=out, first=at, flat=part.flat, positive=part.positive)
            self.steps.append(Step("map" if part.layout == layout else "move", None, [part], place, {"copy": True}))
            at += part.shape[0]
        return out

    def _slice(self, op: Op) -> Value:
        x = self._inside(self.values[op.inputs[0]])
        return Value(self.shapes[op], x.layout, parent=x, first=op.start, flat=x.flat, positive=x.positive)

    def _shuffle(self, op: Op) -> Value:
        x = self._inside(self.values[op.inputs[0]])
        out = Value(x.shape, x.layout, flat=x.flat, positive=x.positive)
        c = x.shape[0]
        order = [g * (c // op.groups) + i for i in range(c // op.groups) for g in range(op.groups)]
        self.steps.append(Step("move", op, [x], out, {"channels": order}))
        return out

    def _window(self, op: Op) -> Value:
        x = self.values[op.inputs[0]]
        _, h, w = shape = self.shapes[op]
        axes = op.axes if op.attrs.get("bins") is None else bins(op.bins, *x.shape[1:])
        x = self._inside(x) if x.shape[1:] == (1, 1) else x
        if x.layout is not None and (x.layout.vector or x.layout.stack > 1):
            x = self.moved_to(x, self.level(*x.shape[1:]))
        layout = self.following(x, axes, h, w)
        fill = 0.0 if op.mode == "average" or x.positive else float("-inf")
        x = self.read(x, layout, axes, fill)
        out = Value(shape, layout, positive=x.positive)
        self.steps.append(Step("window", op, [x], out, {"axes": axes, "size": self.shapes[op.inputs[0]][1:]}))
        return out

    def _mean(self, op: Op) -> Value:
        x = self._inside(self.values[op.inputs[0]])
        assert x.layout is not None
        if x.layout.vector or x.layout.stack > 1:
            return x  # a map of one pixel
        near = flat_layout(x.layout.images)
        out = Value(self.shapes[op], near, flat=op.flat, positive=x.positive)
        self.steps.append(Step("sum", op, [x], out))
        want = self.flat(op, x)
        return out if want == near else self.moved_to(out, want)
