"""Schema 1, dense and bitmask: what the store writes, so that checkouts of every age can share one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunebench.errors import UsageError, unknown
from prunebench.formats import bitmask, container
from prunebench.formats.entry import Entry

FORMATS = ("dense", "bitmask")


def pays(tensor: Tensor) -> bool:
    """True for a floating tensor of two dimensions or more that is at least half zero."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and 2 * int(tensor.count_nonzero()) <= tensor.numel()


def to_bytes(state: Mapping[str, Tensor], format: str = "bitmask") -> bytes:
    """A state dict as one safetensors file; "bitmask" compresses floating tensors that are at least half zero."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    tensors: dict[str, Tensor] = {}
    compressed = []
    for name, tensor in state.items():
        if format == "bitmask" and pays(tensor):
            parts = bitmask.encode(tensor.detach().cpu().contiguous().flatten(1))
            parts["shape"] = torch.tensor(tensor.shape, dtype=torch.int64)
            tensors.update({f"{name}.{part}": value for part, value in parts.items()})
            compressed.append(name)
        else:
            # A copy: safetensors refuses tensors that share memory, as tied weights do.
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    if len(tensors) != len(state) + len(compressed) * (len(bitmask.PARTS) - 1):
        raise UsageError(f"two tensors would share a name once compressed; known names: {', '.join(state)}")
    metadata = {"format": "pt", "prunebench": json.dumps({"schema": 1, "bitmask": sorted(compressed)})}
    return container.write(tensors, metadata)


def entries(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """The encoded tensors of a file of this schema by name; ValueError, KeyError or TypeError where it is damaged."""
    found = {}
    for name in about.get("bitmask", []):
        if tensors[f"{name}.shape"].dtype != torch.int64:
            raise ValueError(f"the shape of {name!r} is no int64")
        shape = tuple(tensors[f"{name}.shape"].reshape(-1).tolist())
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"a bitmask tensor can't have shape {list(shape)}")
        dtype = tensors[f"{name}.{bitmask.VALUES}"].dtype
        found[name] = Entry(shape, dtype, "bitmask", dtype, stem=name)
    return found
