"""Checkpoints on disk: safetensors with dense or bitmask-compressed weights; never pickle."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from prunebench.atomic import write_bytes
from prunebench.errors import UsageError, unknown
from prunebench.formats import bitmask
from prunebench.untrusted import parse_json, plain_line

__all__ = ["FORMATS", "from_bytes", "load", "save", "to_bytes"]

FORMATS = ("dense", "bitmask")


def to_bytes(state: Mapping[str, Tensor], format: str = "bitmask") -> bytes:
    """A state dict as one safetensors file; "bitmask" compresses floating tensors that are at least half zero."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    tensors: dict[str, Tensor] = {}
    compressed = []
    for name, tensor in state.items():
        if format == "bitmask" and bitmask.pays(tensor):
            tensors.update({f"{name}.{part}": value for part, value in bitmask.encode(tensor).items()})
            compressed.append(name)
        else:
            # A copy: safetensors refuses tensors that share memory, as tied weights do.
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    if len(tensors) != len(state) + len(compressed) * (len(bitmask.PARTS) - 1):
        raise UsageError(f"two tensors would share a name once compressed; known names: {', '.join(state)}")
    metadata = {"format": "pt", "prunebench": json.dumps({"schema": 1, "bitmask": sorted(compressed)})}
    return _canonical(safetensors.torch.save(tensors, metadata))


def _canonical(content: bytes) -> bytes:
    # safetensors writes its header's metadata in random order: sorted, equal states give equal bytes.
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The state dict in a file's content; UsageError for one that is not safetensors or is damaged."""
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = parse_json(content[8 : 8 + length], unique=True).get("__metadata__", {})
        compressed = parse_json(metadata.get("prunebench", "{}"), unique=True).get("bitmask", [])
        for name in compressed:
            tensors[name] = bitmask.decode({part: tensors.pop(f"{name}.{part}") for part in bitmask.PARTS})
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
            ArithmeticError, MemoryError) as error:  # fmt: skip
        said = textwrap.shorten(plain_line(error), 300)  # it may quote the file
        raise UsageError(f"not a readable safetensors checkpoint: {said}") from error
    return tensors


def save(model: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str], format: str = "bitmask") -> int:
    """Write a model's (or a state dict's) tensors; returns the bytes written. The file appears whole or not at all.

    format: "dense", or "bitmask" (a bit per weight and the nonzero values). Raises UsageError where the format is
    unknown or the path can't be written.
    """
    content = to_bytes(model.state_dict() if isinstance(model, nn.Module) else model, format)
    write_bytes(Path(path), content)
    return len(content)


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read a checkpoint; with a model, load it there too (all names must fit). Returns the dense state dict.

    Raises UsageError where the file is missing, damaged, or does not fit the model.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    try:
        state = from_bytes(content)
    except UsageError as error:
        raise UsageError(f"{path} is {error}") from error
    if model is not None:
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        # Compared before anything is copied: load_state_dict would leave the model half overwritten.
        wrong = [f"{n} is {found.get(n, 'missing')}, not {wanted.get(n, 'wanted')}"
                 for n in {**wanted, **found} if wanted.get(n) != found.get(n)]  # fmt: skip
        if wrong:
            raise UsageError(f"{path} does not fit {type(model).__name__}: {'; '.join(wrong[:3])}")
        model.load_state_dict(state)
    return state
