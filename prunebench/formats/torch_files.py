"""State dicts in files of either kind: ours and any safetensors, or torch.save's, which is never unpickled freely."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.formats import read

_ZIP = b"PK\x03\x04"  # what torch.save's files begin with


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file that a user named; UsageError where it holds none.

    torch.save's files are read with weights_only=True: tensors and containers, no code.
    """
    if not _from_torch(path):
        checkpoint = read(path)
        return {name: checkpoint.tensor(name) for name in checkpoint.entries}
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        words = str(error).split("\n")[0][:200]
        raise UsageError(
            f"{path} can't be read with weights_only=True ({words}); save its state_dict() alone"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]  # the habit of training scripts
    if not (isinstance(found, Mapping) and found and all(isinstance(t, Tensor) for t in found.values())):
        raise UsageError(f"{path} holds no state dict of tensors; save model.state_dict()")
    return {str(name): tensor.detach() for name, tensor in found.items()}


def _from_torch(path: str | os.PathLike[str]) -> bool:
    try:
        with open(Path(path), "rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
