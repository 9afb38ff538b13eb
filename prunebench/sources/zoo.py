"""torchvision's and timm's models by name, with random weights: `torchvision:resnet50:num_classes=10`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection
from typing import Any

from prunebench.errors import UsageError, reason
from prunebench.sources import Source

_SAMPLE = (3, 224, 224)
_SAMPLES = {"inception_v3": (3, 299, 299)}  # torchvision's that can't take less


def build(kind: str, text: str) -> Source:
    """The model of a library, with the options behind its name."""
    name, *given = text.split(":")
    options = dict(_option(text, one) for one in given)
    library = package(kind)
    known = torchvision_names() if kind == "torchvision" else frozenset(library.list_models())
    if name not in known:
        raise UsageError(f"{kind} has no model {name!r}{close(name, known)}")
    try:
        if kind == "torchvision":
            extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            model = library.models.get_model(name, weights=None, **extra, **options)
        else:
            model = library.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise UsageError(f"{kind} can't build {text!r}: {reason(error)[:200]}") from error
    return Source(f"{kind}:{text}", model, _sample(kind, name, model), trained=False)


def torchvision_names() -> frozenset[str]:
    """Names of torchvision's image classifiers."""
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


def package(name: str) -> Any:
    """An imported package; UsageError with the remedy where it isn't installed or doesn't import."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = getattr(error, "name", None) == name
        why = "is not installed" if missing else f"doesn't import ({reason(error)[:200]})"
        raise UsageError(f"{name} {why}; pip install {name}") from error


def close(name: str, known: Collection[str]) -> str:
    """What of the known names was probably meant, as the end of a sentence."""
    near = difflib.get_close_matches(name, sorted(known), 3, 0.6)
    return f"; close to it: {', '.join(near)}" if near else f"; it has {len(known)}, for example {sorted(known)[0]}"


def _option(text: str, one: str) -> tuple[str, Any]:
    key, equals, value = one.partition("=")
    if not equals or not key.isidentifier() or not value:
        raise UsageError(f"{one!r} in {text!r} is no option; give KEY=VALUE, for example num_classes=10")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, {"true": True, "false": False}.get(value.lower(), value)


def _sample(kind: str, name: str, model: Any) -> tuple[int, ...]:
    if kind == "timm":
        shape = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
        return tuple(shape) if shape else _SAMPLE
    size = getattr(model, "image_size", None)  # of a vision transformer
    return (3, size, size) if isinstance(size, int) else _SAMPLES.get(name, _SAMPLE)
