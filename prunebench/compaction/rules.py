"""What torch functions without filters do to channels and known values: one rule per kind of operation.

A rule takes a call that was just made and returns what is known of each tensor that came out, or None where it can't
say; the call then counts as unknown, and all channels in it are pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from prunebench.compaction.classes import Classes
from prunebench.compaction.values import NAN, Value, along, channels, constants, narrow, varies


@dataclass(frozen=True)
class Call:
    """A torch function's call: its operands as they were before it (id of tensor -> value), and what came out.

    followed: the ids of operands that depend on the model's input, rather than being its own parameters.
    """

    func: Any
    name: str
    args: Any
    kwargs: Any
    values: dict[int, Value]
    followed: frozenset[int]
    out: Any

    def again(self, of: Callable[[Value], Tensor]) -> Any:
        """The same function on something else in place of its tensors."""
        args, kwargs = tree_map(
            lambda a: of(self.values[id(a)]) if isinstance(a, Tensor) else a, (self.args, self.kwargs)
        )
        return self.func(*args, **kwargs)


_Rule = Callable[[Call, Classes], "list[Value] | None"]


def _identity(call: Call, classes: Classes) -> list[Value] | None:
    return [call.values[id(call.args[0])]]


def _dropout(call: Call, classes: Classes) -> list[Value] | None:
    return None if _argument(call, 2, "training", True) else _identity(call, classes)


def _elementwise(call: Call, classes: Classes) -> list[Value] | None:
    shape = call.out.shape
    operands = [call.values[id(t)] for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    leading = [v for v in operands if v.ids.shape == shape]
    if not leading:
        return None
    # One that differs between elements, if any does: a map of one channel only scales them.
    lead = leading[0]
    for other in operands:
        if other is not lead:
            _meet(lead.ids, other.ids, classes)
    # Copies of one shape: the operation may be in place.
    common = torch.broadcast_shapes(*(narrow(v.known).shape for v in operands))
    small = call.again(lambda v: narrow(v.known).expand(common).clone())
    if "mul" in call.name and len(operands) == 2:
        nothing = (narrow(operands[0].known) == 0) | (narrow(operands[1].known) == 0)
        small = torch.where(nothing, 0.0, small)  # whatever the other one is
    return [Value(lead.ids, small.expand(shape))]


def _meet(lead: Tensor, other: Tensor, classes: Classes) -> None:
    """Unite the channels that one operand's broadcasting puts together; one spread over many channels has to stay."""
    if other.numel() == 1 and lead.numel() > 1:
        classes.pin(other)
        return
    padded = other[(None,) * (lead.ndim - other.ndim)]
    for axis in range(lead.ndim):
        if padded.shape[axis] == 1 and lead.shape[axis] > 1 and varies(lead, axis):
            classes.pin(narrow(other))
            return
    a, b = narrow(lead), narrow(padded)
    a, b = torch.broadcast_tensors(a, b)
    classes.unite(a, b)


def _moving(call: Call, classes: Classes) -> list[Value] | None:
    if not call.followed and call.name not in ("cat", "concat", "concatenate", "stack"):
        return None
    if call.name not in ("cat", "concat", "concatenate", "stack") and len(call.values) != len(call.followed):
        return None  # an index or a shape that is itself a tensor
    plain = call.name in ("view", "unflatten")  # which take no expanded tensors
    ids = call.again(lambda v: v.ids.contiguous() if plain else v.ids)
    known = call.again(lambda v: v.known.contiguous() if plain else v.known)
    return [Value(i, k) for i, k in zip(tree_leaves(ids), tree_leaves(known), strict=True)]


def _pad(call: Call, classes: Classes) -> list[Value] | None:
    sizes = _argument(call, 1, "pad")
    constant = _argument(call, 2, "mode", "constant") == "constant"
    value = float(_argument(call, 3, "value") or 0.0)
    x = call.values[id(call.args[0])]
    if len(sizes) <= 2 * (call.out.ndim - 2):
        return _maps(call, (lambda k: k == value) if constant else _any)
    # Padding channels are no filter's: they stay.
    pad = torch.nn.functional.pad
    return [Value(pad(x.ids, sizes, value=0), pad(x.known, sizes, value=value))] if constant else None


def _pool(call: Call, classes: Classes) -> list[Value] | None:
    """Resizing, and pooling that never counts padding: what is the same everywhere stays what it is."""
    return _maps(call, _any)


def _average(call: Call, classes: Classes) -> list[Value] | None:
    padding, divisor = _argument(call, 3, "padding", 0), _argument(call, 6, "divisor_override")
    return _maps(call, _any if divisor is None and not torch.tensor(padding).any() else _zero)


def _norm_pool(call: Call, classes: Classes) -> list[Value] | None:
    return _maps(call, _zero)


def _any(known: Tensor) -> Tensor:
    return ~known.isnan()


def _zero(known: Tensor) -> Tensor:
    return known == 0


def _maps(call: Call, stays: Callable[[Tensor], Tensor]) -> list[Value] | None:
    """Maps (n, channels, …) to maps, channel by channel; stays: which constants are the same afterwards.

    Others count as unknown, even where a border's part could be told: it would hold for one size of images only.
    """
    if not isinstance(call.out, Tensor) or len(call.values) != 1 or call.out.ndim < 3:
        return None
    (x,) = call.values.values()
    ids = channels(x.ids, 1)
    if ids is None or x.ids.ndim != call.out.ndim or len(ids) != call.out.shape[1]:
        return None
    known = constants(x.known, 1)
    known = torch.where(stays(known), known, torch.full_like(known, NAN))
    return [Value(*(along(v, 1, call.out.ndim).expand(call.out.shape) for v in (ids, known)))]


def _reducing(call: Call, classes: Classes) -> list[Value] | None:
    """Means, sums and extremes over axes along which the channel stays the same."""
    axes, keep = _argument(call, 1, "dim", call.kwargs.get("axis")), bool(_argument(call, 2, "keepdim", False))
    if axes is None or not isinstance(call.out, Tensor):
        return None
    x = call.values[id(call.args[0])]
    axes = [axes] if isinstance(axes, int) else list(axes)
    if any(varies(x.ids, axis) for axis in axes):
        return None
    known = call.again(lambda v: v.known)
    if call.name == "sum":
        known = torch.where(known == 0, 0.0, NAN)  # another size of images, another sum
    return [Value(torch.amax(x.ids, axes, keepdim=keep), known)]


def _argument(call: Call, position: int, name: str, default: Any = None) -> Any:
    return call.args[position] if len(call.args) > position else call.kwargs.get(name, default)


# Names without the underscores around them: `add_` and `__iadd__` do to channels what `add` does.
_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_SAME = ("contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type_as", "requires_grad")
_ELEMENTWISE = (
    "relu relu6 hardswish hardsigmoid hardtanh silu gelu sigmoid tanh leaky_relu elu selu celu softplus mish "
    "logsigmoid softsign tanhshrink hardshrink softshrink threshold exp log sqrt rsqrt abs neg pow square erf sin cos "
    "clamp clamp_min clamp_max reciprocal maximum minimum add sub mul div subtract multiply divide true_divide "
    "iadd isub imul idiv itruediv radd rsub rmul rdiv rtruediv truediv"
)
_MOVING = (
    "view reshape flatten unflatten transpose permute movedim moveaxis squeeze unsqueeze cat concat concatenate chunk "
    "split split_with_sizes tensor_split unbind stack getitem narrow select swapaxes swapdims expand t roll flip "
    "pixel_shuffle pixel_unshuffle repeat"
)
_POOLS = [f"{kind}_pool{d}d" for kind in ("max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)]

RULES: dict[str, _Rule] = {
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(_SAME, _identity),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_MOVING.split(), _moving),
    **dict.fromkeys([*_POOLS, "interpolate", "upsample", "upsample_nearest", "upsample_bilinear"], _pool),
    **{f"avg_pool{d}d": _average for d in (1, 2, 3)},
    **{f"lp_pool{d}d": _norm_pool for d in (1, 2, 3)},
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reducing),
    "pad": _pad,
}
# Calls that turn a tensor into plain Python values: the model may do anything with those.
READING = frozenset(
    ("item", "tolist", "bool", "float", "int", "index", "numpy", "equal", "allclose", "is_nonzero", "array")
)
