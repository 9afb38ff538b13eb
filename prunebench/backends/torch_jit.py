"""torch_jit: the dense model traced, frozen and optimised for inference: folded norms, oneDNN's weight layouts."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.registry import backend


@backend("torch_jit")
class TorchJitExecutor(FixedBatchExecutor):
    """torch.jit.optimize_for_inference on a frozen trace."""

    name = "torch_jit"

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # newer torch calls the whole of torch.jit deprecated
                fast = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))
            for _ in range(2):  # the profiling executor specialises in its first calls
                fast(example)
        except Exception as error:
            raise refused("torch.jit", error) from error
        return fast
