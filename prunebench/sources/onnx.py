"""An ONNX file as a torch model, by onnx2torch: what it can't convert, it names."""

from __future__ import annotations

from pathlib import Path

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
        model = converter.convert(graph)
    except Exception as error:
        raise UsageError(f"onnx2torch can't convert {text}: {reason(error)[:200]}") from error
    own = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in own]
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    sample = tuple(sizes[1:]) if len(sizes) > 1 and all(n > 0 for n in sizes[1:]) else None
    return Source(text, model, sample)
