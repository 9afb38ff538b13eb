"""The float64 reference that every output is checked against before anything is timed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError

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

        count = len(x)
        self.x = x
        self.rows = sorted({*range(min(SAMPLES, count)), *range(max(0, count - SAMPLES), count)})
        with torch.inference_mode():
            self.output = copy.deepcopy(model).double()(x[self.rows].double())

    def error(self, engine: Callable[[Tensor], Any]) -> float:
        """The largest difference of an engine's output over the reference's largest value."""
        import torch

        with torch.inference_mode():
            found = engine(self.x)[self.rows].double()
        return float((found - self.output).abs().max() / self.output.abs().max().clamp_min(1e-30))

    def check(self, engine: Callable[[Tensor], Any], name: str) -> float:
        """The same; CheckFailed beyond TOLERANCE, and where the error is NaN."""
        error = self.error(engine)
        if not error <= TOLERANCE:
            raise CheckFailed(
                f"{name}: output differs from the float64 reference by {error:.1e}, more than {TOLERANCE:.0e}"
            )
        return error
