"""Replays captured calls on another framework's arrays; images lie (n, rows, columns, channels) while they can.

A framework gives its functions as an `Arrays`; the rules here say what each core ATen operator is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prunebench.backends.core_aten import INPUT, Graph, Ref, window_pads

_AXES = {0: 0, 1: 3, 2: 1, 3: 2}  # torch's axis of an image -> the axis here


class Arrays(Protocol):
    """What a framework must give; images are (n, rows, columns, channels), pads are (before, after) per axis."""

    def conv(self, x: Any, kernel: Any, strides: Any, pads: Any, dilation: Any, groups: int) -> Any: ...
    def dense(self, x: Any, weight: Any) -> Any: ...
    def max_pool(self, x: Any, window: Any, strides: Any) -> Any: ...
    def avg_pool(self, x: Any, window: Any, strides: Any) -> Any: ...
    def pad(self, x: Any, pads: Any, value: float) -> Any: ...
    def transpose(self, x: Any, order: Any) -> Any: ...
    def reshape(self, x: Any, shape: Any) -> Any: ...
    def expand(self, x: Any, shape: Any) -> Any: ...
    def concat(self, xs: Any, axis: int) -> Any: ...
    def mean(self, x: Any, axes: Any, keep: bool) -> Any: ...
    def any(self, x: Any, axis: int, keep: bool) -> Any: ...
    def squeeze(self, x: Any, axes: Any) -> Any: ...
    def matmul(self, a: Any, b: Any) -> Any: ...
    def clip(self, x: Any, low: float, high: float) -> Any: ...
    def where(self, condition: Any, a: Any, b: Any) -> Any: ...
    def full_like(self, x: Any, value: float) -> Any: ...
    def softmax(self, x: Any, axis: int) -> Any: ...
    def function(self, name: str, x: Any) -> Any:
        """One of relu, sigmoid, tanh, exp, sqrt, erf of every element."""


@dataclass(frozen=True)
class Image:
    """An array (n, rows, columns, channels) that stands for torch's (n, channels, rows, columns)."""

    array: Any


class Untranslated(ValueError):
    """A call that has no rule here; the message names the operator."""


def replay(graph: Graph, weights: Mapping[str, Any], x: Any, xp: Arrays) -> Any:
    """The graph's output for x, in torch's order of axes; Untranslated names what has no rule."""
    rules = _Rules(xp)
    values: dict[str, Any] = {**weights, INPUT: x}
    last = {ref.name: i for i, call in enumerate(graph.calls) for ref in _refs(call.args)}

    def value(argument: Any) -> Any:
        if isinstance(argument, list):
            return [value(one) for one in argument]
        return values[argument.name] if isinstance(argument, Ref) else argument

    for i, call in enumerate(graph.calls):
        rule: Callable[..., Any] | None = getattr(rules, call.op, None)
        if rule is None:
            raise Untranslated(f"aten.{call.op} has no translation")
        try:
            values[call.name] = rule(*value(call.args), **{k: value(v) for k, v in call.options.items()})
        except TypeError as error:
            raise Untranslated(f"aten.{call.op} has no translation with these arguments ({error})") from error
        for ref in _refs(call.args):  # what nobody reads any more may go, where this runs eagerly
            if last[ref.name] == i and ref.name not in weights and ref.name != graph.output.name:
                values.pop(ref.name, None)
    return rules.plain(values[graph.output.name])


def _refs(args: list[Any]) -> list[Ref]:
    return [r for a in args for r in (a if isinstance(a, list) else [a]) if isinstance(r, Ref)]


def _pair(value: Any) -> tuple[int, int]:
    one = [value] if isinstance(value, int) else list(value)
    return (one[0], one[-1])


class _Rules:
    """A method per operator, named as in a Call."""

    def __init__(self, xp: Arrays) -> None:
        self.xp = xp

    def plain(self, x: Any) -> Any:
        """In torch's order of axes."""
        return self.xp.transpose(x.array, (0, 3, 1, 2)) if isinstance(x, Image) else x

    def image(self, x: Any) -> Any:
        """The array of an image, channels last."""
        return x.array if isinstance(x, Image) else self.xp.transpose(x, (0, 2, 3, 1))

    # Layers.

    def conv2d(self, x: Any, kernel: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
               groups: int = 1) -> Image:  # fmt: skip
        if isinstance(padding, str):  # "same" or "valid"
            total = [d * (k - 1) * (padding == "same") for d, k in zip(_pair(dilation), kernel.shape, strict=False)]
            pads = [(t // 2, t - t // 2) for t in total]
        else:
            pads = [(p, p) for p in _pair(padding)]
        y = self.xp.conv(self.image(x), kernel, _pair(stride), pads, _pair(dilation), groups)
        return Image(y if bias is None else y + bias)

    def linear(self, x: Any, weight: Any, bias: Any = None) -> Any:
        y = self.xp.dense(self.plain(x), weight)
        return y if bias is None else y + bias

    def scale_shift(self, x: Any, scale: Any, shift: Any) -> Any:
        if isinstance(x, Image) or len(x.shape) == 4:
            return Image(self.image(x) * scale + shift)
        if len(x.shape) != 2:
            raise Untranslated("batch norm of sequences has no translation")
        return x * scale + shift

    def native_layer_norm(self, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
        x = self.plain(x)
        axes = tuple(range(len(x.shape) - len(shape), len(x.shape)))
        centred = x - self.xp.mean(x, axes, True)
        y = centred / self.xp.function("sqrt", self.xp.mean(centred * centred, axes, True) + eps)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def max_pool2d_with_indices(self, x: Any, window: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
                                ceil: bool = False) -> Image:  # fmt: skip
        if _pair(dilation) != (1, 1):
            raise Untranslated("max-pooling with dilation has no translation")
        x = self._padded(self.image(x), window, stride or window, padding, ceil, float("-inf"))
        return Image(self.xp.max_pool(x, _pair(window), _pair(stride or window)))

    def avg_pool2d(self, x: Any, window: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
                   include: bool = True, divisor: int | None = None) -> Image:  # fmt: skip
        if divisor is not None or ceil or (_pair(padding) != (0, 0) and not include):
            raise Untranslated("average pooling that doesn't count its padding, or rounds up, has no translation")
        x = self._padded(self.image(x), window, stride or window, padding, False, 0.0)
        return Image(self.xp.avg_pool(x, _pair(window), _pair(stride or window)))

    def adaptive_avg_pool2d(self, x: Any, size: Any) -> Image:
        x = self.image(x)
        rows, columns = x.shape[1:3]
        if rows % size[0] or columns % size[1]:
            raise Untranslated(f"adaptive pooling of {rows} x {columns} to {tuple(size)} has no translation")
        window = (rows // size[0], columns // size[1])
        return Image(self.xp.avg_pool(x, window, window))

    def _padded(self, x: Any, window: Any, stride: Any, padding: Any, ceil: bool, value: float) -> Any:
        parts = zip(x.shape[1:3], _pair(window), _pair(stride), _pair(padding), strict=True)
        pads = [window_pads(size, taps, step, pad, 1, ceil) for size, taps, step, pad in parts]
        return x if pads == [(0, 0), (0, 0)] else self.xp.pad(x, [(0, 0), *pads, (0, 0)], value)

    def constant_pad_nd(self, x: Any, pads: Any, value: float = 0.0) -> Any:
        x = self.plain(x)
        given = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
        return self.xp.pad(x, [(0, 0)] * (len(x.shape) - len(given)) + given, value)

    # Element by element.

    def _each(self, x: Any, f: Callable[[Any], Any]) -> Any:
        return Image(f(x.array)) if isinstance(x, Image) else f(x)

    def relu(self, x: Any) -> Any:
        return self._each(x, lambda a: self.xp.function("relu", a))

    def sigmoid(self, x: Any) -> Any:
        return self._each(x, lambda a: self.xp.function("sigmoid", a))

    def tanh(self, x: Any) -> Any:
        return self._each(x, lambda a: self.xp.function("tanh", a))

    def exp(self, x: Any) -> Any:
        return self._each(x, lambda a: self.xp.function("exp", a))

    def hardtanh(self, x: Any, low: float = -1.0, high: float = 1.0) -> Any:
        return self._each(x, lambda a: self.xp.clip(a, low, high))

    def clamp(self, x: Any, low: float | None = None, high: float | None = None) -> Any:
        infinity = float("inf")
        return self.hardtanh(x, -infinity if low is None else low, infinity if high is None else high)

    def gelu(self, x: Any, approximate: str = "none") -> Any:
        if approximate == "tanh":
            inner = lambda a: (2 / 3.141592653589793) ** 0.5 * (a + 0.044715 * a * a * a)  # noqa: E731
            return self._each(x, lambda a: 0.5 * a * (1.0 + self.xp.function("tanh", inner(a))))
        return self._each(x, lambda a: 0.5 * a * (1.0 + self.xp.function("erf", a * 0.5**0.5)))

    def add(self, a: Any, b: Any, alpha: float = 1) -> Any:
        return self._both(a, b, lambda p, q: p + (q if alpha == 1 else alpha * q))

    def sub(self, a: Any, b: Any, alpha: float = 1) -> Any:
        return self._both(a, b, lambda p, q: p - (q if alpha == 1 else alpha * q))

    def mul(self, a: Any, b: Any) -> Any:
        return self._both(a, b, lambda p, q: p * q)

    def div(self, a: Any, b: Any) -> Any:
        return self._both(a, b, lambda p, q: p / q)

    def _both(self, a: Any, b: Any, f: Callable[[Any, Any], Any]) -> Any:
        if isinstance(b, (int, float)):
            return self._each(a, lambda x: f(x, b))
        # Broadcasting goes by torch's axes: both as images, or neither.
        ranks = [4 if isinstance(x, Image) else len(x.shape) for x in (a, b)]
        if any(isinstance(x, Image) for x in (a, b)) and ranks == [4, 4]:
            return Image(f(self.image(a), self.image(b)))
        return f(self.plain(a), self.plain(b))

    def eq(self, x: Any, other: Any) -> Any:
        return self.plain(x) == other

    def logical_not(self, x: Any) -> Any:
        return ~x

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.xp.where(condition, self.plain(a), self.plain(b))

    def full_like(self, x: Any, value: float, **_: Any) -> Any:
        return self.xp.full_like(self.plain(x), value)

    # Shapes and sums.

    def mean(self, x: Any, axes: Any, keep: bool = False, **_: Any) -> Any:
        if isinstance(x, Image):
            if {a % 4 for a in axes} == {2, 3}:
                y = self.xp.mean(x.array, (1, 2), keep)
                return Image(y) if keep else y
            x = self.plain(x)
        return self.xp.mean(x, tuple(a % len(x.shape) for a in axes), keep)

    def any(self, x: Any, axis: int, keep: bool = False) -> Any:
        return self.xp.any(x, axis, keep)

    def softmax(self, x: Any, axis: int, half: bool = False) -> Any:
        return self.xp.softmax(self.plain(x), axis)

    def bmm(self, a: Any, b: Any) -> Any:
        return self.xp.matmul(a, b)

    mm = bmm

    def cat(self, xs: Any, axis: int = 0) -> Any:
        if all(isinstance(x, Image) for x in xs):
            return Image(self.xp.concat([x.array for x in xs], _AXES[axis % 4]))
        return self.xp.concat([self.plain(x) for x in xs], axis)

    def view(self, x: Any, shape: Any) -> Any:
        return self.xp.reshape(self.plain(x), shape)

    unsafe_view = reshape = view

    def permute(self, x: Any, order: Any) -> Any:
        x = self.plain(x)
        return self.xp.transpose(x, tuple(a % len(x.shape) for a in order))

    def expand(self, x: Any, shape: Any) -> Any:
        x = self.plain(x)
        own = [1] * (len(shape) - len(x.shape)) + list(x.shape)
        return self.xp.expand(x, [o if s == -1 else s for s, o in zip(shape, own, strict=True)])

    def squeeze(self, x: Any, axes: Any) -> Any:
        x = self.plain(x)
        given = [axes] if isinstance(axes, int) else axes
        return self.xp.squeeze(x, tuple(a for a in given if x.shape[a] == 1))

    def unsqueeze(self, x: Any, axis: int) -> Any:
        x = self.plain(x)
        place = axis % (len(x.shape) + 1)
        return self.xp.reshape(x, [*x.shape[:place], 1, *x.shape[place:]])

    def slice(self, x: Any, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
        x = self.plain(x)
        index: list[Any] = [slice(None)] * len(x.shape)
        index[axis] = slice(start, None if end is None or end >= x.shape[axis] else end, step)
        return x[tuple(index)]

    def select(self, x: Any, axis: int, place: int) -> Any:
        x = self.plain(x)
        index: list[Any] = [slice(None)] * len(x.shape)
        index[axis] = place % x.shape[axis]
        return x[tuple(index)]

    def clone(self, x: Any, **_: Any) -> Any:
        return x

    alias = detach = clone
