"""Models that people have: named in one text, built here, one file per kind of source.

`torchvision:NAME`, `timm:NAME`, `hf:FOLDER`, `FILE.py:FUNCTION`, `MODULE:FUNCTION`, `FILE.onnx`; a checkpoint
(`.safetensors`, or a state dict that torch.save wrote) holds weights alone and needs the model they are for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KINDS", "Source", "load"]

KINDS = (
    "torchvision:NAME, timm:NAME, hf:FOLDER, FILE.py:FUNCTION, MODULE:FUNCTION, FILE.onnx, FILE.safetensors, FILE.pt"
)
_BUILDERS = {"torchvision": "zoo", "timm": "zoo", "hf": "huggingface"}
CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Source:
    """A model in evaluation mode, float32 on the CPU, and what is known of one sample's shape (None: not known)."""

    text: str
    model: nn.Module
    sample: tuple[int, ...] | None = None
    trained: bool = True  # False where its weights are random


def load(text: str, architecture: str | None = None) -> Source:
    """The model that a text names; a checkpoint is read into the one that `architecture` names.

    UsageError in one line for whatever is wrong: an unknown kind or name, a package or a file that is missing, code
    that raises, keys that don't fit.
    """
    suffix = Path(text).suffix.lower()
    if suffix in CHECKPOINTS and not text.startswith(tuple(f"{kind}:" for kind in _BUILDERS)):
        return _checkpoint(text, architecture)
    if architecture is not None:
        raise UsageError(f"--model is for a checkpoint such as weights.safetensors; {text!r} is a model already")
    return _built(text)


def _built(text: str) -> Source:
    kind, colon, name = text.partition(":")
    if Path(text).suffix.lower() == ".onnx":
        return _ready(_room("onnx").build(text))
    if not colon or not kind:
        raise UsageError(f"{text!r} names no model{_meant(text)}; known: {KINDS}")
    if not name:
        raise UsageError(f"{text!r} names nothing after the colon; known: {KINDS}")
    if kind in _BUILDERS:
        return _ready(_room(_BUILDERS[kind]).build(kind, name))
    return _ready(_room("factory").build(text))


def _room(name: str) -> Any:
    return importlib.import_module(f"prunebench.sources.{name}")


def _meant(text: str) -> str:
    path = Path(text)
    if path.suffix == ".py":
        return f" without its function; give {text}:FUNCTION"
    if path.is_dir():
        return f"; for a folder of Hugging Face's give hf:{text}"
    from prunebench.sources.zoo import torchvision_names

    return f"; give torchvision:{text}" if text in torchvision_names() else ""


def _ready(source: Source) -> Source:
    source.model.float().cpu().eval().requires_grad_(False)
    return source


def _checkpoint(text: str, architecture: str | None) -> Source:
    from prunebench.sources import checkpoint

    state = checkpoint.read(text)
    if architecture is None:
        raise UsageError(
            f"{text} holds weights and no architecture; give --model torchvision:NAME, timm:NAME or FILE.py:FUNCTION"
        )
    if Path(architecture).suffix.lower() in CHECKPOINTS:
        raise UsageError(f"--model {architecture} is a checkpoint too; give the model that the weights are for")
    source = _built(architecture)
    checkpoint.fill(source.model, state, text, architecture)
    return Source(f"{text} in {architecture}", source.model, source.sample)
