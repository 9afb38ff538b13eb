"""torch_compile: the dense model through torch.compile's inductor, within a limit of time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, nn

from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.backends.needs import missing
from prunebench.errors import BackendUnavailable
from prunebench.registry import backend

LIMIT_SECONDS = 60


class _TimeUp(BaseException):
    """Not an Exception, so that no handler within the compiler takes it for a model that can't be compiled."""


@backend("torch_compile")
class TorchCompileExecutor(FixedBatchExecutor):
    """torch.compile with static shapes; `limit`: seconds of compilation after which it gives up."""

    name = "torch_compile"

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1, limit: float = LIMIT_SECONDS) -> None:
        self.limit = limit
        super().__init__(model, example_input, threads)

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        # One compiled function per executor: dynamo's caches, and its limit of recompilations, go by the code object.
        torch._dynamo.reset()
        compiled = torch.compile(model, dynamic=False)
        try:
            with _at_most(self.limit):
                compiled(example)
        except _TimeUp:
            torch._dynamo.reset()
            raise BackendUnavailable(f"torch.compile took more than {self.limit:g} s") from None
        except Exception as error:
            raise refused("torch.compile", error) from error
        return compiled

    @staticmethod
    def unavailable() -> str | None:
        return missing("torch_compile")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise _TimeUp in the block after `seconds`; no limit outside the main thread or without POSIX timers."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
