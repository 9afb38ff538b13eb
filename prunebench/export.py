"""export_onnx: a pruned model as an ONNX file, its zeros left out where that makes the file smaller."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.atomic import write_bytes
from prunebench.errors import UsageError, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["export_onnx"]

_LIMIT = 2**31 - 1  # bytes of one protobuf message


def export_onnx(
    model: nn.Module, example_input: Tensor, path: str | os.PathLike[str], sparse_initializer: bool = False
) -> int:
    """Write a model in eval mode as ONNX, for any batch size; returns the bytes. The file appears whole or not at all.

    example_input: float32 (n, …). sparse_initializer: float32 weights of which more than two thirds are zero become
    COO tensors of values (FLOAT) and linear indices (INT64): 12 bytes per nonzero, in the file only. ONNX Runtime
    makes them dense as it loads them; runtimes that read no sparse initializers need the dense file. Batch norms are
    folded into convolutions by torch's exporter. Raises UsageError where onnx isn't installed, the model, the example
    or the path can't be, or the file would be larger than 2 GiB. Source: ONNX IR specification, SparseTensorProto.
    """
    import torch

    from prunebench.backends.onnxruntime import exported

    if importlib.util.find_spec("onnx") is None:
        raise UsageError("export_onnx needs the package onnx; pip install 'prunebench[onnxruntime]'")
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"export_onnx takes a torch.nn.Module, not {type(model).__name__}")
    if model.training:
        raise UsageError("the model is in train mode; call model.eval() before export_onnx")
    if not isinstance(example_input, torch.Tensor) or example_input.dtype != torch.float32 or not len(example_input):
        raise UsageError("export_onnx needs example_input, a float32 tensor (n, …) that the model takes")
    try:
        with torch.inference_mode():
            content = exported(model, example_input, any_batch=True)
    except Exception as error:
        raise UsageError(f"{type(model).__name__} can't be exported to ONNX: {reason(error)[:300]}") from error
    content = _finished(content, sparse_initializer)
    write_bytes(Path(path), content)
    return len(content)


def _finished(content: bytes, sparse: bool) -> bytes:
    """The file with its zeros left out where asked, checked by onnx."""
    import onnx

    proto = onnx.load_from_string(content)
    if sparse:
        dense = list(proto.graph.initializer)
        packed = [_coo(tensor) for tensor in dense]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(tensor for tensor, coo in zip(dense, packed, strict=True) if coo is None)
        proto.graph.sparse_initializer.extend(coo for coo in packed if coo is not None)
    if proto.ByteSize() > _LIMIT:
        raise UsageError(f"the ONNX file would be {proto.ByteSize():,} bytes; one file holds less than 2 GiB")
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _coo(tensor: Any) -> Any:
    """The tensor as a SparseTensorProto, or None where that is no smaller."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    values = numpy_helper.to_array(tensor).ravel()
    places = values.nonzero()[0].astype("int64")
    coo = onnx.SparseTensorProto(
        values=numpy_helper.from_array(values[places], tensor.name),
        indices=numpy_helper.from_array(places, f"{tensor.name}.indices"),
        dims=tensor.dims,
    )
    return coo if len(places) and coo.ByteSize() < tensor.ByteSize() else None
