"""The float64 reference that every output is checked against before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError
from prunebench.outputs import logits

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-4
SAMPLES = 4  # rows of the batch that are checked, from each of its ends


class CheckFailed(PrunebenchError, AssertionError):
    """An output is not the model's; the message gives the error and the bound."""


class Reference:
    """What an eval-mode model computes in float64 for the rows at both ends of a float32 batch (n, …)."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        import torch

        from prunebench.reparametrised import plain_copy  # here: a grid is collected without torch

        self.x = x
        self.rows = rows_checked(len(x))
        with torch.inference_mode():
            self.output = logits(plain_copy(model).double()(x[self.rows].double()))

    def error(self, engine: Callable[[Tensor], Any]) -> float:
        """The largest difference of an engine's output over the reference's largest value."""
        import torch

        with torch.inference_mode():
            return self.distance(logits(engine(self.x))[self.rows])

    def distance(self, found: Tensor) -> float:
        """The same of an output's `rows` alone."""
        return float((found.double() - self.output).abs().max() / self.output.abs().max().clamp_min(1e-30))

    def check(self, engine: Callable[[Tensor], Any], name: str) -> float:
        """The error; CheckFailed beyond TOLERANCE, and where the error is NaN."""
        return within(self.error(engine), name)


def rows_checked(count: int) -> list[int]:
    """The rows at both ends of a batch of `count`."""
    return sorted({*range(min(SAMPLES, count)), *range(max(0, count - SAMPLES), count)})


def within(error: float, name: str) -> float:
    """The error; CheckFailed, which names the engine, beyond TOLERANCE and where the error is NaN."""
    if not error <= TOLERANCE:
        raise CheckFailed(
            f"{name}: output differs from the float64 reference by {error:.1e}, more than {TOLERANCE:.0e}"
        )
    return error
