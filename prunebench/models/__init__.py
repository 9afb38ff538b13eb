"""Networks by name: one file each, registered through entry points; any other name is torchvision's own.

A model plugin is `f(input_shape, classes, **params) -> nn.Module` with input_shape = (channels, height, width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.errors import UsageError
from prunebench.models.names import check_model, known_models
from prunebench.registry import get, names
from prunebench.spec import Spec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "check_model", "known_models"]


def build(text: str, input_shape: tuple[int, int, int], classes: int, seed: int = 0) -> nn.Module:
    """A freshly initialised model for (channels, height, width) images, its weights decided by the seed alone.

    Raises UsageError for an unknown name, or where the model can't take images of that shape.
    """
    import torch

    spec = Spec.parse(check_model(text))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.name in names("models"):
            plugin, spec = get("models", spec)
            model = plugin.bind(spec)(tuple(input_shape), classes)
        else:
            from prunebench.models.torchvision_models import build_torchvision

            model = build_torchvision(spec.name, input_shape, classes)
    _check_shape(model, spec.text, input_shape, classes)
    return model


def _check_shape(model: nn.Module, name: str, input_shape: tuple[int, int, int], classes: int) -> None:
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(2, *input_shape)).shape)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        sizes = "x".join(map(str, input_shape))
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"model {name!r} can't take {sizes} images ({reason}); give larger ones, for example digits:size=64"
        ) from error
    model.train(was_training)
    if shape != (2, classes):
        raise UsageError(f"model {name!r} returns {shape} for 2 images and {classes} classes; expected (2, {classes})")
