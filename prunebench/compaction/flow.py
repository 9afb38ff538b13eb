"""How channels flow through a model: it is run once on an example, and every torch function is followed.

For each tensor the flow holds which channel every element belongs to and which values don't depend on the input.
Operations that only move elements (views, concatenation, splitting) are run on those tensors themselves, so that they
need no rule of their own; elementwise operations unite channels; conv and linear layers begin new ones. Whatever has
no rule pins all channels that it touches. Control flow needs nothing special: it is one run that is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from prunebench.compaction.classes import PINNED, Classes, Mismatch
from prunebench.compaction.layers import Layer, Norm, can_be_cut
from prunebench.compaction.outputs import tensors_of
from prunebench.compaction.rules import READING, RULES, Call
from prunebench.compaction.values import NAN, Value, along, channels, constants, narrow, unknown

_LINEAR = {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_LINEAR_ORDER = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_ORDER = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_NORM_ORDER = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class Flow(TorchFunctionMode):
    """Follows one run of a model in eval mode; `layers` and `norms` hold what it found.

    A second flow, through a copy that was cut, takes the first one's classes (fixed) and `given`, the channels that
    are left of each layer: {name: (rows, columns)}; it raises where the two don't agree, at operation `len(touched)`.
    """

    def __init__(
        self, model: nn.Module, classes: Classes, given: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__()
        self.classes, self.given = classes, given
        self.layers: dict[str, Layer] = {}
        self.norms: dict[str, Norm] = {}
        self.touched: list[tuple[str, Tensor]] = []  # each operation's name and the channels that came into it
        self._model = model
        self._values: Any = WeakTensorKeyDictionary()
        self._own = {id(t) for t in (*model.parameters(), *model.buffers())}
        self._owners: dict[int, tuple[str, nn.Module]] = {}
        self._shared: set[int] = set()  # tensors that two modules hold, or that something else than its module uses
        for name, module in model.named_modules():
            for tensor in _tensors_of(module):
                if id(tensor) in self._owners:
                    self._shared.add(id(tensor))
                self._owners[id(tensor)] = (name, module)

    def follow(self, x: Tensor) -> int:
        """Run the model on a batch (n, …) and pin what reaches its output; returns how many tensors it puts out."""
        self._values[x] = unknown(x.shape)
        with torch.no_grad(), self:
            out = self._model(x)
        tensors = tensors_of(out)
        for tensor in tensors:
            self.classes.pin(narrow(self._value(tensor).ids))
        return len(tensors)

    def _value(self, tensor: Tensor) -> Value:
        """What is known of a tensor: a model's own parameter or buffer is, one that was never followed isn't."""
        found = self._values.get(tensor)
        if found is None and id(tensor) in self._own and id(tensor) not in self._owners and tensor.is_floating_point():
            return Value(torch.zeros((), dtype=torch.int64).expand(tensor.shape), _plain(tensor))
        return found or unknown(tensor.shape)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # Read before the call, which may be in place.
        values = {id(t): self._value(t) for t in tensors}
        followed = frozenset(id(t) for t in tensors if t in self._values)
        reached = [narrow(values[i].ids).unique() for i in followed]
        self.touched.append((name, torch.cat([torch.zeros(0, dtype=torch.int64), *reached])))
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not results:
            if name in READING:
                self._give_up(tensors, values, results)
            return out
        if not followed and not any(id(t) in self._own for t in tensors):
            return out
        found = self._found(Call(func, name, args, kwargs, values, followed, out)) if followed else None
        if found is None or [v.ids.shape for v in found] != [t.shape for t in results]:
            self._give_up(tensors, values, results)
        else:
            for tensor, value in zip(results, found, strict=True):
                self._values[tensor] = value
        return out

    def _found(self, call: Call) -> list[Value] | None:
        if call.name in _LINEAR:
            return self._linear(call)
        if call.name == "batch_norm":
            return self._batch_norm(call)
        if any(i in self._owners for i in call.values):
            return None  # a layer's weight, used as if it were any tensor
        rule = RULES.get(call.name)
        if rule is None or not call.args:
            return None
        try:
            return rule(call, self.classes)
        except Mismatch:
            raise
        except Exception:  # arguments that the rule doesn't expect: a call without one
            return None

    def _give_up(self, tensors: list[Tensor], values: Mapping[int, Value], results: list[Tensor]) -> None:
        """Pin all channels of the operands, the layers whose weights are among them included."""
        for tensor in tensors:
            self.classes.pin(narrow(values[id(tensor)].ids))
            if id(tensor) in self._owners:
                self._shared.add(id(tensor))
                name = self._owners[id(tensor)][0]
                if name in self.layers:
                    self.classes.pin(torch.cat([self.layers[name].rows, self.layers[name].columns]))
                if name in self.norms:
                    self.classes.pin(self.norms[name].columns)
        for tensor in results:
            self._values[tensor] = unknown(tensor.shape)

    def _owner(self, tensors: list[Tensor | None]) -> tuple[str, Any] | None:
        """The one module that holds all these tensors, and alone."""
        given = [id(t) for t in tensors if t is not None]
        found = {self._owners.get(i) for i in given}
        return found.pop() if len(found) == 1 and not self._shared.intersection(given) else None

    def _linear(self, call: Call) -> list[Value] | None:
        order = _TRANSPOSED_ORDER if "transpose" in call.name else _LINEAR_ORDER
        given = {**dict(zip(order, call.args, strict=False)), **call.kwargs}
        x, owner = given["input"], self._owner([given["weight"], given.get("bias")])
        if owner is None or id(x) not in call.followed:
            return None
        name, module = owner
        flat = isinstance(module, nn.Linear)
        if module.weight is not given["weight"] or (not flat and x.ndim != module.weight.ndim):
            return None
        axis = x.ndim - 1 if flat else 1
        value = call.values[id(x)]
        ids = self._channels(value, axis)
        padding = given.get("padding", 0)
        unpadded = padding == "valid" or not (isinstance(padding, str) or bool(torch.tensor(padding).any()))
        exact = flat or (unpadded and not module.transposed)
        layer = self._layer(name, module, ids, exact)
        layer.inputs.append(constants(value.known, axis))
        known = along(_known_outputs(layer), axis, call.out.ndim).expand(call.out.shape)
        return [Value(along(layer.rows, axis, call.out.ndim).expand(call.out.shape), known)]

    def _layer(self, name: str, module: Any, ids: Tensor, exact: bool) -> Layer:
        if name not in self.layers:
            if self.given is not None:
                rows, columns = self.given[name]
            else:
                rows = self.classes.new(module.out_features if isinstance(module, nn.Linear) else module.out_channels)
                columns = ids
            self.layers[name] = Layer(name, module, rows, columns, exact)
        layer = self.layers[name]
        layer.exact &= exact
        self._unite(layer.columns, ids)
        if layer.depthwise:
            self._unite(layer.rows, ids.repeat_interleave(len(layer.rows) // len(ids)))
        return layer

    def _batch_norm(self, call: Call) -> list[Value] | None:
        given = {**dict(zip(_NORM_ORDER, call.args, strict=False)), **call.kwargs}
        owner = self._owner([given.get(k) for k in _NORM_ORDER[1:5]])
        value = call.values[id(given["input"])]
        if owner is None or not isinstance(owner[1], _BatchNorm) or call.out.ndim < 2:
            return None
        ids = self._channels(value, 1)
        name, module = owner
        if name not in self.norms:
            self.norms[name] = Norm(name, module, ids if self.given is None else self.given[name][1])
        self._unite(self.norms[name].columns, ids)
        if given.get("training") or module.running_mean is None or module.running_var is None:
            return [Value(value.ids, unknown(call.out.shape).known)]
        scale = (_plain(module.running_var) + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * _plain(module.weight)
        shift = -_plain(module.running_mean) * scale
        shift = shift if module.bias is None else shift + _plain(module.bias)
        known = narrow(value.known) * along(scale, 1, call.out.ndim) + along(shift, 1, call.out.ndim)
        return [Value(value.ids, known.expand(call.out.shape))]

    def _channels(self, value: Value, axis: int) -> Tensor:
        """The channels along an axis; where several are mixed at one place along it, all of them stay."""
        ids = channels(value.ids, axis)
        if ids is not None:
            return ids
        # They were pinned when they were first met; any others only lie so because some are gone.
        if self.classes.fixed and not self.classes.pinned(narrow(value.ids)):
            raise Mismatch
        self.classes.pin(narrow(value.ids))
        return torch.full((value.ids.shape[axis],), PINNED)

    def _unite(self, a: Tensor, b: Tensor) -> None:
        if a.shape != b.shape:
            raise Mismatch
        self.classes.unite(a, b)


def _tensors_of(module: nn.Module) -> list[Tensor]:
    if isinstance(module, _BatchNorm):
        tensors = [module.weight, module.bias, module.running_mean, module.running_var]
    elif can_be_cut(module):
        tensors = [module._parameters.get("weight"), module._parameters.get("bias")]
    else:
        return []
    return [t for t in tensors if t is not None]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()


def _known_outputs(layer: Layer) -> Tensor:
    """float64 (filters,): what a filter puts out everywhere, where no channel that it reads depends on the input.

    Where zeros are padded that holds for zeros only: other constants make a map with a border.
    """
    constant = layer.inputs[-1]
    wanted = constant.isnan() if layer.exact else constant.isnan() | (constant != 0)
    known = ~layer.reads[:, wanted].any(1)
    total = torch.zeros(len(layer.rows)).double() if layer.module.bias is None else _plain(layer.module.bias)
    if bool(constant.nan_to_num(0.0).any()) and bool(known.any()):
        group = torch.arange(len(layer.rows)) // (len(layer.rows) // layer.groups)
        total = total + (layer.weight().sum(2) * constant.nan_to_num(0.0).view(layer.groups, -1)[group]).sum(1)
    return torch.where(known, total, NAN)
