"""Cases as plain JSON values, on their way to a process that measures them, and back.

JSON keeps what a case holds to the bit: texts, whole numbers, and floats by their shortest exact form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prunebench.cell import Case, Cell
from prunebench.questions import ClaimCase, LayerCase, NetworkCase
from prunebench.shapes import LayerShape


def plain(case: Any) -> dict[str, Any]:
    """A case's values, a recipe's and a layer's inside them."""
    return asdict(case)


def case_of(question: str, values: Mapping[str, Any]) -> Any:
    """The case of a question that `plain` gave these values for."""
    if question == "grid":
        return Case(**{**values, "cell": Cell.from_dict(values["cell"])})
    if question == "networks":
        return NetworkCase(**{**values, "peers": tuple(values["peers"])})
    if question == "layers":
        return _layer(values)
    layer = values["layer"]
    return ClaimCase(**{**values, "layer": None if layer is None else _layer(layer)})


def _layer(values: Mapping[str, Any]) -> LayerCase:
    inner = {"layer": LayerShape(**values["layer"]), "networks": tuple(values["networks"])}
    return LayerCase(**{**values, **inner})
