"""Which model names are known, found without importing torch: registered ones and torchvision's own."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from prunebench.errors import unknown
from prunebench.registry import check, names
from prunebench.spec import Spec

_BUILDER = re.compile(r"^@register_model\(([^)]*)\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


@cache
def torchvision_names() -> frozenset[str]:
    """Names of torchvision's classification models, read from its source files (importing it imports torch)."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return frozenset()
    files = (Path(found.origin).parent / "models").glob("*.py")
    builders = (match for file in files for match in _BUILDER.findall(file.read_text()))
    return frozenset(re.sub(r"^name=|[\"']", "", given) or function for given, function in builders)


def known_models() -> list[str]:
    """Every model name, registered ones first."""
    registered = names("models")
    return [*registered, *sorted(torchvision_names() - set(registered))]


def check_model(text: str | Spec) -> str:
    """The canonical spec string of a known model; UsageError lists what is known."""
    spec = Spec.parse(text, "model")
    if spec.name in names("models"):
        return check("models", spec)
    if spec.name not in torchvision_names():
        raise unknown("model", spec.name, names("models"), "and every torchvision classification model by its own name")
    if spec.params or spec.args:
        raise unknown(f"parameter of model {spec.name!r}:", spec.text.partition(":")[2], [])
    return spec.text
