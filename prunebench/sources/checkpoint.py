"""Weights alone: safetensors, or a state dict that torch.save wrote (read without running any code of its pickle)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from prunebench import formats
from prunebench.errors import UsageError
from prunebench.formats.torch_files import unpickled
from prunebench.state_dicts import load_state

_SHOWN = 3
_INSIDE = ("state_dict", "model_state_dict", "model")  # where training scripts keep it


def read(path: str) -> dict[str, Tensor]:
    """The state dict in a file, masks of torch.nn.utils.prune multiplied in; UsageError for a file that is none."""
    if not Path(path).is_file():
        raise UsageError(f"there is no file {path}; give a checkpoint's path")
    state = formats.load(path) if path.endswith(".safetensors") else _pickled(path)
    return _plain(state)


def _pickled(path: str) -> dict[str, Tensor]:
    found = unpickled(path)
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise UsageError(f"{path} holds no state dict; write model.state_dict() with safetensors.torch.save_file")
    return dict(found)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    masks = {name.removesuffix("_mask") for name in state if name.endswith("_mask")}
    masked = {name for name in masks if f"{name}_orig" in state}
    plain = {n: t for n, t in state.items() if n.removesuffix("_orig").removesuffix("_mask") not in masked}
    plain |= {name: state[f"{name}_orig"] * state[f"{name}_mask"] for name in masked}
    if plain and all(name.startswith("module.") for name in plain):  # saved from DataParallel
        plain = {name.removeprefix("module."): tensor for name, tensor in plain.items()}
    return plain


def fill(model: nn.Module, state: Mapping[str, Tensor], path: str, architecture: str) -> None:
    """Load a state dict into a model; UsageError lists the keys that differ, and the model is untouched."""
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # no one computes with them
    missing = [f"{n} {wanted[n]}" for n in wanted if n not in found and n not in counters]
    strange = [f"{n} {found[n]}" for n in found if n not in wanted]
    other = [f"{n} {found[n]} instead of {wanted[n]}" for n in found if n in wanted and found[n] != wanted[n]]
    parts = [
        f"{what}: {_some(names)}"
        for what, names in (("missing", missing), ("not in the model", strange), ("of another shape", other))
        if names
    ]
    if parts:
        hint = "; for another number of classes give NAME:num_classes=N" if other and not missing + strange else ""
        raise UsageError(f"{path} doesn't fit {architecture}: {'; '.join(parts)}{hint}")
    load_state(model, state, strict=False)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
