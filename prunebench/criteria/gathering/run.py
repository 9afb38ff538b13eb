"""What all needs share: the model in evaluation mode, its layers, and the batches, read as often as a need asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.errors import UsageError
from prunebench.outputs import logits

BATCH_NORM = ("running", "batch")


@dataclass(frozen=True)
class Run:
    """One gathering: modules by parameter name, batches of (x, y) or None, and the criterion it is for.

    watched: what an observer saw of the training so far, or None (see Need.observer). norms: batch
    norms that take each batch's own statistics where gradients of a batch are asked for.
    """

    model: nn.Module
    modules: Mapping[str, Any]
    data: Iterable[tuple[Any, Any]] | None
    loss: Callable[[Tensor, Tensor], Tensor]
    criterion: str
    watched: Any = None
    norms: Sequence[nn.Module] = ()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights themselves, for autograd."""
        return {name: module.weight for name, module in self.modules.items()}

    def zeros(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Zeros of the weights' shapes to sum in: float32, or float64 where the weight is."""
        weights = self.weights
        return {n: torch.zeros_like(weights[n], dtype=precise(weights[n].dtype), requires_grad=False) for n in names}

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches where the model is. Raises UsageError for data that aren't pairs, or that hold no batch."""
        device = next(iter(self.modules.values())).weight.device
        empty = True
        for batch in self.data or ():
            try:
                x, y = batch
            except (TypeError, ValueError):
                raise UsageError(
                    f"criterion {self.criterion!r}: data must be an iterable of (x, y) batches, "
                    f"not of {type(batch).__name__}"
                ) from None
            empty = False
            yield _on(device, x), _on(device, y)
        if empty:
            raise UsageError(
                f"criterion {self.criterion!r} needs data, but the data given holds no batch; pass data=[(x, y), …]"
            )


def _on(device: torch.device, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # A tensor made in inference mode can't meet autograd.
    return value.to(device).clone() if value.is_inference() else value.to(device)


def precise(dtype: torch.dtype) -> torch.dtype:
    """The type to sum in: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """The loss where none was given: mean cross-entropy of the logits."""
    return F.cross_entropy(logits(out), y)


@contextmanager
def own_statistics(run: Run) -> Iterator[None]:
    """Inside `evaluating`: the run's batch norms normalise by each batch's own statistics, and so do gradients.

    At initialisation the running ones are 0 and 1, which normalises nothing: gradients would be those of a network
    without batch norms. SNIP's and GraSP's published code goes through the batch's statistics.
    """
    handles = [module.register_forward_pre_hook(_with_own) for module in run.norms]
    try:
        yield
    finally:
        for handle, module in zip(handles, run.norms, strict=True):
            handle.remove()
            module.training = False


def batch_norms(model: nn.Module, statistics: str) -> list[nn.Module]:
    """The batch norms that take a batch's statistics: none for "running", all for "batch".

    Raises UsageError for another word.
    """
    if statistics not in BATCH_NORM:
        raise UsageError(f"batch_norm={statistics!r} can't be used; known: {', '.join(BATCH_NORM)}")
    if statistics == "running":
        return []
    norm = nn.modules.batchnorm._BatchNorm  # of every dimension
    # SyncBatchNorm computes a batch's only within a process group.
    return [m for m in model.modules() if isinstance(m, norm) and not isinstance(m, nn.SyncBatchNorm)]


def _with_own(module: nn.Module, args: tuple[Any, ...]) -> None:
    x = args[0]
    module.training = x.numel() > x.shape[1]  # one value per channel has no variance


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients for every parameter; modes, flags and buffers are put back afterwards.

    Evaluation mode, so that batch norm's running statistics don't move and dropout adds no noise.
    """
    modes = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    model.eval()
    for p in frozen:
        p.requires_grad_(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):  # a model may count its calls even in evaluation mode
                    buffer.copy_(before)
