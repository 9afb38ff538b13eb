"""What the compiled dense backends share: they are built for one input shape, other batches run through it in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.backends.torch_modules import layer_rows
from prunebench.costs import tensor_bytes
from prunebench.errors import BackendUnavailable, UsageError, reason
from prunebench.reparametrised import plain_copy


class FixedBatchExecutor:
    """Runs a model compiled for the example's shape (n, …); a batch of another size goes through in parts of n.

    The last part is filled up with zero rows, whose outputs are dropped. Rows of an eval-mode model don't depend on
    each other, so that the answer is the same.
    """

    name = "fixed"

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1) -> None:
        self.threads = threads
        self.shape = tuple(example_input.shape)
        twin = plain_copy(model).eval().requires_grad_(False)
        self._bytes = tensor_bytes([*twin.parameters(), *twin.buffers()])
        self._rows = layer_rows(twin, self.name)
        with torch.inference_mode():
            self.run = self._held(lambda: self.build(twin, example_input.detach().contiguous().clone()))

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """A call for batches of exactly the example's shape, given a private copy of the model."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """The model's output; x: float32 (any n, …). UsageError: samples of another shape than the example's."""
        if tuple(x.shape) == self.shape:
            return self._held(lambda: self.run(x.contiguous()))
        if x.shape[1:] != self.shape[1:] or not len(x):
            raise UsageError(f"backend {self.name!r} was compiled for {self.shape}; it can't take {tuple(x.shape)}")
        padded = x.new_zeros(-(-len(x) // self.shape[0]) * self.shape[0], *self.shape[1:])
        padded[: len(x)] = x
        return torch.cat([self(part) for part in padded.split(self.shape[0])])[: len(x)]

    def _held(self, call: Callable[[], Any]) -> Any:
        """The call under inference_mode at this executor's number of torch threads."""
        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return call()
        finally:
            if before != self.threads:
                torch.set_num_threads(before)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights handed over; a runtime that repacks them may hold more."""
        return self._bytes

    def summary(self) -> list[dict[str, Any]]:
        """A row per conv and linear layer: name, kind, shape, kernel, sparsity."""
        return [dict(row) for row in self._rows]

    @staticmethod
    def unavailable() -> str | None:
        return None


def refused(name: str, error: Exception) -> BackendUnavailable:
    """The error for a model that a runtime can't take."""
    return BackendUnavailable(f"{name} can't take this model: {reason(error)[:300]}")
