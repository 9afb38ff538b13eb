"""The csr backend: a thin face on the sparse engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench.engine import available

if TYPE_CHECKING:
    import torch


class CsrExecutor:
    """Runs a pruned model through the native sparse engine; float32 CPU tensor in, tensor out.

    tune: True measures layouts and tiles at compile time, False takes a model's word, a former engine's `choices`
    repeat them.
    """

    name = "csr"

    def __init__(self, model: torch.nn.Module, example_input: torch.Tensor, threads: int | None = 1, tune: Any = True):
        from prunebench.engine.compiler import compile_engine  # torch is only needed from here on

        self.engine = compile_engine(model, example_input, threads=threads, tune=tune)

    def __call__(self, x: torch.Tensor) -> Any:
        """The model's output for x, shape as model(x)."""
        return self.engine(x)

    @property
    def nbytes(self) -> int:
        """Resident bytes of the weights."""
        return self.engine.nbytes

    @property
    def threads(self) -> int:
        """Threads the engine uses."""
        return self.engine.threads

    @property
    def choices(self) -> Any:
        """What tuning chose; `tune=` of a later compilation takes it."""
        return self.engine.choices

    def profile(self, x: torch.Tensor, rounds: int = 10) -> Any:
        """The layer table with microseconds and GFLOP/s measured on x, float32 (n, …)."""
        return self.engine.profile(x, rounds)

    def summary(self) -> Any:
        """The layer table: kind, sparsity, kernel, layout, bytes."""
        return self.engine.summary()

    @staticmethod
    def unavailable() -> str | None:
        """The one-line reason why this backend can't run here, or None."""
        return available()
