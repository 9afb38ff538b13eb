"""Which layers read the same channels: the columns of their weights that must go together, or not at all.

A channel can be dropped only where every reader of it is a conv or linear layer that drops it too. Channels that also
reach the model's output, an excluded layer, a norm over several channels or an operation not known here are left out,
and so are the model's own input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from prunebench.granularities.ties import CONCATENATIONS, Flow

_MIXING = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.LocalResponseNorm, nn.Softmax)
_MIXING_FUNCTIONS = ("softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm", "normalize")
# Sizes and the like tell nothing of a channel's values.
_ASKING = ("size", "dim", "numel", "getattr", "floordiv", "is_contiguous")


@dataclass(frozen=True)
class Read:
    """One layer's columns for a group's channels: channel c is read by columns start + c·width, `width` of them."""

    name: str
    start: int
    width: int


def tied_channels(model: nn.Module, modules: Mapping[str, Any]) -> list[tuple[int, tuple[Read, ...]]]:
    """Groups of channels: how many they are, and who reads them. Empty where torch.fx can't trace the model.

    Without a trace the readers of a channel aren't known, unlike filters, which are a layer's own.
    """
    names = {id(module): name for name, module in modules.items()}
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # any of user code's own errors on a proxy: the model can't be traced
        return []
    flow = _Reading(model, names, modules)
    for node in graph.nodes:
        flow.visit(node)
    return flow.reads()


class _Reading(Flow):
    """Follows filters to those who read them."""

    def __init__(self, model: nn.Module, names: Mapping[int, str], modules: Mapping[str, Any]) -> None:
        super().__init__(model, names)
        self.modules = modules
        self.inputs: dict[str, tuple[int, ...]] = {}
        self._used: dict[int, tuple[int, ...]] = {}

    def _module(self, module: nn.Module, inputs: list[Any]) -> Any:
        out = super()._module(module, inputs)
        reached = tuple(i for channels in inputs for i in channels or ())
        if not isinstance(module, (_ConvNd, nn.Linear)):
            if out is None or isinstance(module, _MIXING):
                self.fixed.update(reached)
            return out
        name = self.names.get(id(module))
        known = len(inputs) == 1 and inputs[0] is not None
        before = self._used.setdefault(id(module.weight), reached)
        if name is None or not known or name in self.inputs or before is not reached:
            # A weight that is excluded, read from an unknown place, or used twice.
            self.fixed.update((*reached, *before))
        if name is not None and known:
            self.inputs.setdefault(name, reached)
            if _depthwise(module) and len(reached) != 1:
                self.fixed.update((*reached, *(out or ())))
        return out

    def _function(self, node: fx.Node, inputs: list[Any]) -> Any:
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        if name in _ASKING:
            return None
        if name in ("view", "reshape") and len(node.args) == 3 and node.args[2] == -1:
            return inputs[0]  # (n, -1): flattened
        out = super()._function(node, inputs)
        joined = out is not None and target in CONCATENATIONS
        alike = out is not None and all(c is None or len(c) == len(out) for c in inputs)
        if name in _MIXING_FUNCTIONS or not (joined or alike):
            self.fixed.update(i for channels in inputs for i in channels or ())
        return out

    def reads(self) -> list[tuple[int, tuple[Read, ...]]]:
        """(channels, readers) of every group that may be dropped, in the order in which they are first read."""
        sizes = {i: _filters(self.modules[name]) for name, i in self.layer.items()}
        fixed = {self.ids.find(i) for i in self.fixed}
        groups: dict[int, list[Read]] = {}
        counts: dict[int, int] = {}
        for name, ids in self.inputs.items():
            parts = _parts(self.modules[name], [sizes.get(i) for i in ids])
            if parts is None:
                fixed.update(self.ids.find(i) for i in ids)
                continue
            start = 0
            for i, (count, width) in zip(ids, parts, strict=True):
                root = self.ids.find(i)
                groups.setdefault(root, []).append(Read(name, start, width))
                if counts.setdefault(root, count) != count:
                    fixed.add(root)
                start += count * width
        return [(counts[root], tuple(reads)) for root, reads in groups.items() if root not in fixed]


def _depthwise(module: Any) -> bool:
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def _filters(module: Any) -> int:
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def _parts(module: Any, sizes: list[int | None]) -> list[tuple[int, int]] | None:
    """(channels, columns of each) of a layer's input, part by part; None where sizes don't tell. One may be unknown."""
    total = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    known = sum(s for s in sizes if s is not None)
    missing = sizes.count(None)
    if missing == 0:
        width = total // known
        flat = isinstance(module, nn.Linear)
        return [(s or 0, width) for s in sizes] if known * width == total and (flat or width == 1) else None
    if missing > 1 or known >= total:
        return None
    return [(total - known if s is None else s, 1) for s in sizes]
