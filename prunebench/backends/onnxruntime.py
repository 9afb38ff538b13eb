"""onnxruntime: the dense model exported to ONNX and run by ONNX Runtime's CPU provider (extra `onnxruntime`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.attention import unfused
from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.backends.needs import missing
from prunebench.registry import backend

OPSET = 17


@backend("onnxruntime")
class OnnxRuntimeExecutor(FixedBatchExecutor):
    """ONNX Runtime with all graph optimisations and `threads` threads within an operator."""

    name = "onnxruntime"

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(exported(model, example), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise refused("ONNX Runtime", error) from error
        return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    @staticmethod
    def unavailable() -> str | None:
        return missing("onnxruntime")


def exported(model: nn.Module, example: Tensor, any_batch: bool = False) -> bytes:
    """An eval-mode model as ONNX with input x and output y, for the example's shape or for any number of samples."""
    file: Any = io.BytesIO()
    axes: Any = {"x": {0: "batch"}, "y": {0: "batch"}} if any_batch else None
    with unfused(), warnings.catch_warnings():  # fused attention has no ONNX operator
        warnings.simplefilter("ignore")  # the trace-based exporter, which needs no further package, is called legacy
        torch.onnx.export(
            model, (example,), file, dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["y"],
            dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue()
