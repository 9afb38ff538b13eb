"""What the backends that run through torch share: a private copy, thread count, bytes, and a layer table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunebench.costs import tensor_bytes
from prunebench.masks import held_weights
from prunebench.reparametrised import plain_copy


class TorchExecutor:
    """Runs a torch module under inference_mode at a fixed number of threads."""

    name = "torch"

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1) -> None:
        self.threads = threads
        self.module = self.prepare(plain_copy(model).eval().requires_grad_(False))

    def prepare(self, model: nn.Module) -> nn.Module:
        """What the backend does to its private copy of the model."""
        return model

    def __call__(self, x: Tensor) -> Tensor:
        # Setting the thread count costs a call into the runtime, so only where it differs.
        before = torch.get_num_threads()
        if before == self.threads:
            with torch.inference_mode():
                return self.module(x)
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return self.module(x)
        finally:
            torch.set_num_threads(before)

    @property
    def nbytes(self) -> int:
        """Resident bytes of weights and buffers."""
        return tensor_bytes([*self.module.parameters(), *self.module.buffers(), *self.extra_tensors()])

    def extra_tensors(self) -> list[Tensor]:
        """Weights kept resident outside parameters and buffers."""
        return []

    def summary(self) -> list[dict[str, Any]]:
        """A row per conv and linear layer: name, kind, shape, sparsity, kernel."""
        return layer_rows(self.module, self.name)

    @staticmethod
    def unavailable() -> str | None:
        return None


def layer_rows(model: nn.Module, kernel: str) -> list[dict[str, Any]]:
    """A row per conv, linear and attention weight of a model that one kernel runs."""
    rows = []
    for path, module, attribute in held_weights(model):
        weight = getattr(module, attribute)
        rows.append({
            "layer": path if attribute == "weight" else f"{path}.{attribute}",
            "kind": type(module).__name__,
            "shape": tuple(weight.shape),
            "kernel": kernel,
            "sparsity": 1 - int(weight.count_nonzero()) / weight.numel(),
        })  # fmt: skip
    return rows
