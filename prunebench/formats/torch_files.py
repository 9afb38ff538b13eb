"""State dicts in files of either kind: ours and any safetensors, or torch.save's, which is never unpickled freely."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.formats import read
from prunebench.untrusted import plain_line

_ZIP = b"PK\x03\x04"  # what torch.save's files begin with


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file that a user named; UsageError where it holds none.

    torch.save's files are read with weights_only=True: tensors and containers, no code.
    """
    if not _from_torch(path):
        checkpoint = read(path)
        return {name: checkpoint.tensor(name) for name in checkpoint.entries}
    found = unpickled(path)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]  # the habit of training scripts
    if not (isinstance(found, Mapping) and found and all(isinstance(t, Tensor) for t in found.values())):
        raise UsageError(f"{path} holds no state dict of tensors; save model.state_dict()")
    return {str(name): tensor.detach() for name, tensor in found.items()}


def unpickled(path: str | os.PathLike[str]) -> Any:
    """What torch.save wrote, tensors and containers alone; UsageError for a file that is none or holds more."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its words advise to trust the file, in several lines and in colours
        why = "holds more than tensors, or is none of torch.save's, and nothing else is unpickled"
        raise UsageError(f"{path} {why}; write model.state_dict() with safetensors.torch.save_file") from error
    except Exception as error:  # whatever a damaged archive makes of torch
        words = plain_line(error)[:200]
        raise UsageError(f"{path} is no whole file of torch.save's ({words}); save model.state_dict() again") from error


def _from_torch(path: str | os.PathLike[str]) -> bool:
    try:
        with open(Path(path), "rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
