"""An ONNX file as a torch model, by onnx2torch: what it can't convert, it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, reason
from prunebench.sources import Source
from prunebench.sources.zoo import package


def build(text: str) -> Source:
    """The converted model; its initialisers, zeros included, are its weights."""
    if not Path(text).is_file():
        raise UsageError(f"there is no file {text}; give an ONNX file's path")
    onnx, converter = package("onnx"), package("onnx2torch")
    try:
        graph = onnx.load(text)
        _name_twins(graph.graph)
        model = converter.convert(graph)
    except Exception as error:
        raise UsageError(
            f"onnx2torch can't convert {text}: {reason(error)[:200]}; try one exported with opset 17"
        ) from error
    own = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in own]
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    sample = tuple(sizes[1:]) if len(sizes) > 1 and all(n > 0 for n in sizes[1:]) else None
    return Source(text, model, sample)


def _name_twins(graph: Any) -> None:
    """Equal weights, which torch exports once with an Identity for each further name, under every name of their own."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Identity" and n.input[0] in weights]:
        twin = graph.initializer.add()
        twin.CopyFrom(weights[node.input[0]])
        twin.name = node.output[0]
        weights[twin.name] = twin
        graph.node.remove(node)
