"""Schema 2: every encoding and kind of values, per tensor. Laid out byte for byte in docs/file-formats.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from prunebench.errors import UsageError, unknown
from prunebench.formats import container
from prunebench.formats.container import DTYPES, NAMES
from prunebench.formats.entry import ENCODINGS, SCALE, Entry, stem_of
from prunebench.formats.values import VALUES, WEIGHTS, narrow

FORMATS = ("dense", *ENCODINGS)


def to_bytes(state: Mapping[str, Tensor], format: str = "bitmask", values: str | None = None) -> bytes:
    """A state dict as one safetensors file.

    Encoded are the weights, floating tensors of two dimensions or more, where that makes them smaller; the rest is
    stored as it is. UsageError for a format or values that are not known, or that can't hold a weight.
    """
    check_names(format, values)
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    weights = nonzeros = 0
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{name!r} is no tensor but {type(tensor).__name__}, which a checkpoint can't hold")
        if tensor.is_meta or is_lazy(tensor):
            raise UsageError(f"{name!r} has no values yet ({type(tensor).__name__} on {tensor.device}); fill the model")
        # A copy: safetensors refuses tensors that share memory, as tied weights do.
        own = tensor.detach().cpu().contiguous().clone()
        parts = {name: own}
        if own.dtype in WEIGHTS and own.ndim >= 2 and own.numel():
            parts, entry = _weight(name, own, format, values)
            weights, nonzeros = weights + own.numel(), nonzeros + int(own.count_nonzero())
            if entry is not None:
                about[name] = entry
        if tensors.keys() & parts.keys():
            raise UsageError(f"two tensors would share a name once compressed; known names: {', '.join(state)}")
        tensors.update(parts)
    header = {"schema": 2, "format": format, "values": values, "tensors": about}
    metadata = {"format": "pt", "prunebench": json.dumps(header, sort_keys=True, separators=(",", ":"))}
    if format == "bitmask":
        # What compressed-tensors wants to be told beside the tensors, in its own words.
        sparsity = round(1 - nonzeros / max(weights, 1), 6)
        told = {"format": "sparse-bitmask", "global_sparsity": sparsity, "sparsity_structure": "unstructured"}
        metadata["sparsity_config"] = json.dumps(told, sort_keys=True)
    return container.write(tensors, metadata)


def check_names(format: str, values: str | None) -> None:
    """UsageError for a format or values that are not known."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if values is not None and values not in VALUES:
        raise unknown("values", values, VALUES)


def _weight(name: str, own: Tensor, format: str, values: str | None) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """(stored tensors by name, what the metadata says) of a weight; None where it is stored as it is."""
    stored, scales = narrow(name, own.flatten(1), values)
    scale = {} if scales is None else {f"{stem_of(name)}.{SCALE}": scales}
    entry = {"shape": list(own.shape), "dtype": NAMES[own.dtype], "values": NAMES[stored.dtype]}
    if format != "dense":
        parts = ENCODINGS[format].encode(stored)
        if sum(part.nbytes for part in parts.values()) < stored.nbytes:
            return {f"{stem_of(name)}.{part}": t for part, t in parts.items()} | scale, {"encoding": format, **entry}
    if stored.dtype == own.dtype:
        return {name: own}, None
    return {name: stored.reshape(own.shape)} | scale, {"encoding": "dense", **entry}


def entries(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """The encoded tensors of a file of this schema by name; ValueError, KeyError or TypeError where it is damaged."""
    found = {}
    for name, told in about["tensors"].items():
        shape, encoding = told["shape"], told["encoding"]
        if encoding not in FORMATS:
            raise ValueError(f"tensor {name!r} has encoding {encoding!r}; known: {', '.join(FORMATS)}")
        if not (isinstance(shape, list) and len(shape) >= 2 and all(type(n) is int and 0 <= n < 2**63 for n in shape)):
            raise ValueError(f"tensor {name!r} can't have shape {shape}")
        dtype, values = DTYPES[told["dtype"]], DTYPES[told["values"]]
        if dtype not in WEIGHTS or values not in (*WEIGHTS, torch.int8):
            raise ValueError(f"tensor {name!r} can't be {told['dtype']} with values in {told['values']}")
        found[name] = Entry(tuple(shape), dtype, encoding, values, stem=stem_of(name))
    return found
