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
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _construct(spec, input_shape, classes)
        was_training = model.training
        with torch.inference_mode():
            shape = tuple(model.eval()(torch.zeros(2, *input_shape)).shape)
        model.train(was_training)
    except UsageError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        sizes = "x".join(map(str, input_shape))
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"model {spec.text!r} can't take {sizes} images ({reason}); give larger ones, for example digits:size=64"
        ) from error
    if shape != (2, classes):
        raise UsageError(f"model {spec.text!r} returns {shape} for 2 images; expected (2, {classes})")
    return model


def _construct(spec: Spec, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    if spec.name in names("models"):
        plugin, spec = get("models", spec)
        return plugin.bind(spec)(tuple(input_shape), classes)
    from prunebench.models.torchvision_models import build_torchvision

    return build_torchvision(spec.name, input_shape, classes)
