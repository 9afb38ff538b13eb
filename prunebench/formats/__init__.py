"""Checkpoints on disk: safetensors with dense or compressed weights, as docs/file-formats.md tells; never pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prunebench.atomic import write_bytes
from prunebench.errors import UsageError
from prunebench.formats import version2
from prunebench.formats.checkpoint import Checkpoint
from prunebench.formats.values import VALUES
from prunebench.formats.version1 import to_bytes
from prunebench.formats.version2 import FORMATS
from prunebench.state_dicts import load_state

__all__ = ["FORMATS", "VALUES", "Checkpoint", "from_bytes", "load", "read", "save", "to_bytes"]


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The state dict in a file's content; UsageError for one that is not safetensors or is damaged."""
    checkpoint = Checkpoint(content)
    return {name: checkpoint.tensor(name) for name in checkpoint.entries}


def save(
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    format: str = "bitmask",
    values: str | None = None,
) -> int:
    """Write a model's (or a state dict's) tensors; returns the bytes written. The file appears whole or not at all.

    format: "dense", or where it makes a weight smaller "bitmask" (a bit per weight and the nonzero values), "csr" or
    "delta" (distances between nonzeros). values: how weights' values are stored, None as they are, "fp32", "fp16",
    "bf16", or "int8" with a scale per output channel; all but None lose digits. Raises UsageError where either is
    unknown or can't hold a weight, or the path can't be written.
    """
    if not isinstance(model, (nn.Module, Mapping)):
        raise UsageError(f"save takes a torch.nn.Module or a state dict, not {type(model).__name__}")
    content = version2.to_bytes(model.state_dict() if isinstance(model, nn.Module) else model, format, values)
    write_bytes(Path(path), content)
    return len(content)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """A file's checkpoint, checked and not decoded; UsageError where it is missing or damaged."""
    try:
        return Checkpoint(path)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"{path} is {error}") from error


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read a checkpoint's dense state dict; with a model, decode into its own tensors and return them.

    All names and shapes must fit the model, which is left as it was otherwise. Raises UsageError where the file is
    missing, damaged, or does not fit.
    """
    checkpoint = read(path)
    if model is None:
        return {name: checkpoint.tensor(name) for name in checkpoint.entries}
    own = model.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: entry.shape for name, entry in checkpoint.entries.items()}
    # Compared before anything is copied: load_state_dict would leave the model half overwritten.
    wrong = [f"{n} is {found.get(n, 'missing')}, not {wanted.get(n, 'wanted')}"
             for n in {**wanted, **found} if wanted.get(n) != found.get(n)]  # fmt: skip
    if wrong:
        raise UsageError(f"{path} does not fit {type(model).__name__}: {'; '.join(wrong[:3])}")
    if _plain(model):
        with torch.no_grad():
            for name, tensor in own.items():
                checkpoint.into(name, tensor)
    else:
        load_state(model, {name: checkpoint.tensor(name) for name in checkpoint.entries})
    return own


def _plain(model: nn.Module) -> bool:
    """True where loading means copying: no module has a way of its own to load its state."""
    return not any(
        m._load_state_dict_pre_hooks
        or m._load_state_dict_post_hooks
        or not type(m)._load_from_state_dict.__module__.startswith("torch.nn.")
        for m in model.modules()
    )
