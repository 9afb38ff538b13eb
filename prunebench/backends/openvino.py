"""openvino: the dense model converted to OpenVINO and run by its CPU plugin in float32 (extra `openvino`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.backends.needs import missing
from prunebench.registry import backend


@backend("openvino")
class OpenVinoExecutor(FixedBatchExecutor):
    """One synchronous request, tuned for latency; float32 throughout, where newer CPUs would round to bf16."""

    name = "openvino"

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            request = openvino.Core().compile_model(_converted(model, example), "CPU", settings).create_infer_request()
        except Exception as error:
            raise refused("OpenVINO", error) from error
        # The input is read in place; the output is copied out, because the request writes the next one over it.
        return lambda x: torch.from_numpy(request.infer({0: x.numpy()}, share_inputs=True)[0])

    @staticmethod
    def unavailable() -> str | None:
        return missing("openvino")


def _converted(model: nn.Module, example: Tensor) -> Any:
    # By the front end itself: openvino.convert_model does the same, and reports its use to the vendor.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(model, example_input=(example,))  # must outlive the conversion
    converted = front_end.convert(front_end.load(decoder))
    converted.reshape(list(example.shape))
    return converted
