"""Zeros put around images by a node of its own, which a convolution after it can take as its own padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunebench.engine.products import Pads

_PADS = (F.pad, torch._C._nn.pad)  # the second is what TorchDynamo sees of the first
_NAMES = ("input", "pad", "mode", "value")


def zeros_around(node: Any, modules: Mapping[str, nn.Module]) -> Pads | None:
    """How many zeros a node puts left, right, above and below of every image; None where it does anything else."""
    if not isinstance(node, fx.Node):
        return None
    pads: Any = None
    if node.op == "call_module":
        m = modules[str(node.target)]
        if type(m) is nn.ZeroPad2d and not m._forward_hooks and not m._forward_pre_hooks:
            pads = m.padding
    elif node.op == "call_function" and node.target in _PADS and set(node.kwargs) <= set(_NAMES):
        given = {**dict(zip(_NAMES, node.args, strict=False)), **node.kwargs}
        if given.get("mode", "constant") == "constant" and (given.get("value") or 0) == 0:
            pads = given.get("pad")
    if not isinstance(pads, (tuple, list)) or len(pads) != 4 or not all(type(p) is int and p >= 0 for p in pads):
        return None
    return pads[0], pads[1], pads[2], pads[3]
