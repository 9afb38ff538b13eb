"""What a node of a traced model is to the engine: one of its own operations, or nothing it knows."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.ir import Axis, Op
from prunebench.engine.pads import zeros_around
from prunebench.engine.products import NO_PADS, Pads, product_op

_ACTS: dict[Any, str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid", nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu", nn.LeakyReLU: "leaky", F.relu: "relu", F.relu_: "relu", torch.relu: "relu", torch.relu_: "relu",
    F.relu6: "relu6", F.hardswish: "hardswish", F.hardsigmoid: "hardsigmoid", torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid", F.silu: "silu", F.leaky_relu: "leaky", "relu": "relu", "relu_": "relu", "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
}  # fmt: skip
_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_MULS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
Shapes = dict[fx.Node, Any]  # torch.Size of every tensor result


def pair(value: Any) -> tuple[int, int] | None:
    """Two whole numbers from torch's int-or-pair arguments, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return int(value[0]), int(value[1])
    return (pair(value[0])) if isinstance(value, (tuple, list)) and len(value) == 1 else None


class Importer:
    """Recognises nodes; `shapes` are what a run of the example gave, the first number of each the images."""

    def __init__(self, traced: fx.GraphModule, shapes: Shapes, product: Callable[[fx.Node, nn.Module], bool]):
        self.modules = dict(traced.named_modules())
        self.shapes, self.product = shapes, product
        self.read = [str(n.target) for n in traced.graph.nodes if n.op == "get_attr"]

    def shape(self, node: Any) -> Any:
        """Shape of a node's result, None when it is no float32 tensor."""
        return self.shapes.get(node) if isinstance(node, fx.Node) else None

    def rank(self, node: Any) -> int:
        """Dimensions of a node's result, 0 when it is no float32 tensor."""
        shape = self.shape(node)
        return 0 if shape is None else len(shape)

    def maps(self, *nodes: Any) -> bool:
        """Whether all are tensors the engine can hold."""
        return all(self.rank(n) in (2, 4) for n in nodes)

    def recognise(self, node: fx.Node) -> tuple[list[fx.Node], Callable[[list[Op]], Op]] | None:
        """The nodes an operation reads and what makes it from their operations, or None."""
        if not self.maps(node) or not node.args:
            return None
        if zeros_around(node, self.modules) == NO_PADS:
            return [node.args[0]], lambda ops: ops[0]  # type: ignore[list-item]
        if node.op == "call_module":
            return self._module(node, self.modules[str(node.target)])
        if node.op in ("call_function", "call_method"):
            return self._call(node)
        return None

    def _simple(self, node: fx.Node, kind: str, **attrs: Any) -> Any:
        flat = self.rank(node) == 2
        sources = [n for n in node.args[:1] if isinstance(n, fx.Node)]
        return (sources, lambda ops: Op(kind, ops, node.name, attrs, flat)) if self.maps(*sources) else None

    def _module(self, node: fx.Node, m: nn.Module) -> Any:
        x = node.args[0]
        if m._forward_hooks or m._forward_pre_hooks or len(node.args) != 1 or node.kwargs or not self.maps(x):
            return None
        kind = type(m)
        if kind in (nn.Conv2d, nn.Linear):
            if self.rank(x) != (4 if kind is nn.Conv2d else 2) or not self.product(node, m):
                return None
            source, pads = self._unpadded(x, m)
            return [source], lambda ops: product_op(m, ops, str(node.target), pads)
        if kind in _ACTS:
            return self._simple(node, "act", fn=_ACTS[kind], slope=float(getattr(m, "negative_slope", 0.0)))
        if kind is nn.BatchNorm2d and m.running_var is not None and self.rank(x) == 4:
            assert isinstance(m, nn.BatchNorm2d)
            return self._affine(node, m)
        if kind in (nn.MaxPool2d, nn.AvgPool2d):
            options = {
                k: getattr(m, k, None) for k in (*_POOL, "return_indices", "count_include_pad", "divisor_override")
            }
            return self._window(node, options, kind is nn.AvgPool2d)
        if kind is nn.AdaptiveAvgPool2d:
            return self._adaptive(node, m.output_size)
        if kind is nn.Flatten and m.start_dim == 1 and m.end_dim in (-1, self.rank(x) - 1):
            return self._simple(node, "flatten")
        if kind in _NOTHING:
            return [x], lambda ops: ops[0]
        return None

    def _unpadded(self, x: Any, conv: nn.Module) -> tuple[fx.Node, Pads]:
        """What a convolution reads, past a padding with zeros before it, and that padding."""
        pads = zeros_around(x, self.modules)
        if pads is None or getattr(conv, "padding_mode", "") != "zeros" or not self.maps(x.args[0]):
            return x, NO_PADS
        return x.args[0], pads

    def _affine(self, node: fx.Node, m: nn.BatchNorm2d) -> Any:
        assert m.running_var is not None
        assert m.running_mean is not None
        scale = (m.running_var.double() + m.eps).rsqrt()
        scale = scale if m.weight is None else scale * m.weight.double()
        shift = -m.running_mean.double() * scale
        shift = shift if m.bias is None else shift + m.bias.double()
        return self._simple(node, "affine", scale=scale.detach().float().numpy(), shift=shift.detach().float().numpy())

    def _window(self, node: fx.Node, options: dict[str, Any], average: bool) -> Any:
        kernel = pair(options.get("kernel_size"))
        stride = kernel if options.get("stride") in (None, ()) else pair(options["stride"])
        padding, dilation = pair(options.get("padding") or 0), pair(options.get("dilation") or 1)
        if None in (kernel, stride, padding, dilation) or self.rank(node) != 4:
            return None
        if options.get("return_indices") or options.get("divisor_override") is not None:
            return None
        assert kernel is not None
        assert stride is not None
        assert padding is not None
        assert dilation is not None
        ceil = bool(options.get("ceil_mode"))
        axes = tuple(Axis(kernel[i], stride[i], dilation[i], padding[i], padding[i], ceil=ceil) for i in range(2))
        include = options.get("count_include_pad")
        return self._simple(
            node, "window", axes=axes, mode="average" if average else "maximum", include_pad=include in (None, True)
        )

    def _adaptive(self, node: fx.Node, size: Any) -> Any:
        bins, shape = pair(size), self.shape(node.args[0])
        if bins is None or shape is None or len(shape) != 4:
            return None
        if bins == (1, 1):
            return self._simple(node, "mean")
        if shape[2] % bins[0] or shape[3] % bins[1]:
            return None
        return self._simple(node, "window", bins=bins, axes=None, mode="average", include_pad=True)

    def _call(self, node: fx.Node) -> Any:
        f, args, options = node.target, node.args, dict(node.kwargs)
        if f in _ACTS and not set(options) - {"inplace"}:
            if _ACTS[f] == "leaky":
                return self._simple(node, "act", fn="leaky", slope=float(args[1] if len(args) > 1 else 0.01))  # type: ignore[arg-type]
            return self._simple(node, "act", fn=_ACTS[f]) if len(args) <= 2 else None
        if f in _ADDS | _MULS and len(args) == 2 and not options:
            return self._binary(node, "add" if f in _ADDS else "mul")
        if f in (torch.cat, torch.concat) and isinstance(args[0], (list, tuple)):
            dim = args[1] if len(args) > 1 else options.get("dim", 0)
            same = len({self.rank(n) for n in args[0]}) == 1
            good = same and self.maps(*args[0]) and dim in (1, 1 - self.rank(node)) and not set(options) - {"dim"}
            flat = self.rank(node) == 2
            return (list(args[0]), lambda ops: Op("cat", ops, node.name, {}, flat)) if good else None
        if f in (F.max_pool2d, torch.max_pool2d, F.avg_pool2d):
            average = f is F.avg_pool2d
            return self._window(
                node, {**dict(zip(_AVERAGE if average else _POOL, args[1:], strict=False)), **options}, average
            )
        if f is F.adaptive_avg_pool2d:
            return self._adaptive(node, args[1] if len(args) > 1 else options.get("output_size"))
        if f in (F.dropout, F.dropout2d) and not (args[2] if len(args) > 2 else options.get("training", True)):
            return [args[0]], lambda ops: ops[0]
        if getattr(f, "__name__", "") == "stochastic_depth" and not options.get(
            "training", args[3] if len(args) > 3 else True
        ):
            return [args[0]], lambda ops: ops[0]
        return self._shapes(node, f, args, options)

    def _binary(self, node: fx.Node, kind: str) -> Any:
        a, b = node.args
        if not self.maps(a, b) or a is b:
            return None
        sa, sb = self.shapes[a], self.shapes[b]  # type: ignore[index]
        flat = self.rank(node) == 2
        if tuple(sa) == tuple(sb):
            return [a, b], lambda ops: Op(kind, ops, node.name, {}, flat)
        if kind == "mul" and len(sa) == len(sb) == 4 and sa[:2] == sb[:2] and (1, 1) in (tuple(sa[2:]), tuple(sb[2:])):
            x, factor = (a, b) if tuple(sb[2:]) == (1, 1) else (b, a)
            return [x, factor], lambda ops: Op("gate", ops, node.name)
        return None

    def _shapes(self, node: fx.Node, f: Any, args: Any, options: dict[str, Any]) -> Any:
        x = args[0]
        if f is operator.getitem or f in (torch.narrow, "narrow"):
            return self._slice(node, f, args)
        if not self.maps(x):
            return self._shuffle(node)
        have, want = self.shapes[x], self.shapes[node]
        if f in (torch.flatten, "flatten"):
            good = self.rank(node) == 2 and [*args[1:], *options.values()] in ([1], [1, -1])
            return self._simple(node, "flatten") if good else None
        if (
            f in ("view", "reshape", torch.reshape)
            and len(want) == 2
            and want[0] == have[0]
            and self._keeps_images(node)
        ):
            return self._simple(node, "flatten")
        if f in ("mean", torch.mean) and len(have) == 4 and not set(options) - {"dim", "keepdim"}:
            dims = args[1] if len(args) > 1 else options.get("dim")
            if len(args) <= 3 and sorted(d % 4 for d in (pair(dims) or ())) == [2, 3]:
                return self._simple(node, "mean")
        if f in ("contiguous",) and self.rank(node) == self.rank(x):
            return [x], lambda ops: ops[0]
        return self._shuffle(node)

    def _keeps_images(self, node: fx.Node) -> bool:
        """Whether a view to (N, F) follows the images of its input: (x.size(0), …) or (…, F) with the rest inferred."""
        target = node.args[1:] if len(node.args) > 2 else node.args[1]
        if not isinstance(target, (tuple, list)) or len(target) != 2:
            return False
        return isinstance(target[0], fx.Node) or -1 in (target[0], target[1])

    def _slice(self, node: fx.Node, f: Any, args: Any) -> Any:
        """A range of channels: x.chunk(2, 1)[i], x.split(8, 1)[i], x[:, a:b], x.narrow(1, a, n)."""
        x: Any = args[0]
        start: Any = None
        if f is not operator.getitem:
            if tuple(args[1:2]) == (1,) and len(args) == 4:
                start = args[2]
        elif isinstance(args[1], int) and isinstance(x, fx.Node) and args[1] >= 0:
            x, start = self._part(x, args[1])
        elif isinstance(args[1], tuple) and len(args[1]) >= 2 and isinstance(args[1][1], slice):
            every, cut, *rest = args[1]
            if all(i in (slice(None), Ellipsis) for i in (every, *rest)) and every is not Ellipsis:
                start = cut.start or 0 if cut.step in (None, 1) else None
        if type(start) is not int or start < 0 or not self.maps(x) or self.rank(x) != self.rank(node):
            return None
        have, want = self.shapes[x], self.shapes[node]
        if have[0] != want[0] or have[2:] != want[2:] or start + want[1] > have[1]:
            return None
        attrs = {"start": start, "count": int(want[1])}
        return [x], lambda ops: Op("slice", ops, node.name, attrs, self.rank(node) == 2)

    def _part(self, parts: fx.Node, i: int) -> tuple[Any, Any]:
        """What a chunk or split takes apart, and the first channel of part i; None where that isn't known."""
        x: Any = parts.args[0] if parts.args else None
        given = dict(zip(("how", "dim"), parts.args[1:], strict=False)) | {
            {"chunks": "how", "split_size_or_sections": "how", "split_size": "how"}.get(k, k): v
            for k, v in parts.kwargs.items()
        }
        how, dim = given.get("how"), given.get("dim", 0)
        if not self.maps(x) or set(given) - {"how", "dim"} or dim not in (1, 1 - self.rank(x)):
            return None, None
        if parts.target in (torch.chunk, "chunk") and type(how) is int:
            return x, i * -(-self.shapes[x][1] // how)
        if parts.target in (torch.split, "split") and type(how) is int:
            return x, i * how
        if parts.target in (torch.split, "split") and isinstance(how, (tuple, list)):
            return x, sum(how[:i]) if all(type(n) is int for n in how) else None
        return None, None

    def _shuffle(self, node: fx.Node) -> Any:
        """view(N, g, C / g, H, W), transpose(1, 2), view(N, C, H, W): a channel shuffle."""
        back, turn = node, node.args[0]
        while isinstance(turn, fx.Node) and turn.op == "call_method" and turn.target == "contiguous":
            turn = turn.args[0]
        if back.target not in ("view", "reshape", torch.reshape) or not isinstance(turn, fx.Node):
            return None
        if turn.target not in (torch.transpose, "transpose") or tuple(turn.args[1:]) != (1, 2):
            return None
        split = turn.args[0]
        if not isinstance(split, fx.Node) or split.target not in ("view", "reshape", torch.reshape):
            return None
        x, five, shape = split.args[0], self.shape(split), self.shape(node)
        if not self.maps(x) or five is None or len(five) != 5 or self.shape(x) != shape:
            return None
        if five[0] != shape[0] or five[1] * five[2] != shape[1] or five[3:] != shape[2:]:
            return None
        groups = int(five[1])
        return [x], lambda ops: Op("shuffle", ops, node.name, {"groups": groups})


_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
