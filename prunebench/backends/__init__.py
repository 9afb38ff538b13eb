"""Backends: executors of a pruned model, one file each, registered through entry points.

A backend is a class `C(model, example_input, threads=1)` with `__call__(x)`, `nbytes` (resident bytes of weights),
`summary()` (rows of a layer table) and a static `unavailable()` (why it can't run here, or None).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench.backends.needs import BUILT_IN, missing
from prunebench.errors import BackendUnavailable, UsageError
from prunebench.registry import check, get
from prunebench.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["compile", "unavailable"]


def unavailable(backend: str) -> str | None:
    """Why a backend can't run on this machine, in one line; None where it can.

    For the backends of this package nothing is imported that they need, so that listing them all is quick.
    """
    spec = Spec.parse(check("backends", backend))
    if spec.name in BUILT_IN:
        return missing(spec.name)
    plugin, _ = get("backends", spec)
    reason = getattr(plugin.function, "unavailable", None)
    return reason() if reason is not None else None


def compile(
    model: nn.Module, example_input: Tensor, backend: str = "csr", threads: int | None = None, **options: Any
) -> Any:
    """An executor of the model's present weights: `y = engine(x)`, torch tensor in, torch tensor out.

    example_input: a batch like those to come, float32 (n, …). threads: None means torch's own number. The model must
    be in eval mode and is left as it is; later changes to it don't reach the executor: compile again.
    Raises UsageError for a backend, model or input that can't be, BackendUnavailable where it can't run here.
    """
    import torch

    plugin, spec = get("backends", backend)
    reason = unavailable(backend)
    if reason is not None:
        raise BackendUnavailable(f"backend {spec.name!r} is off: {reason}")
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"compile takes a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(example_input, torch.Tensor) or not example_input.is_floating_point():
        given = str(example_input.dtype) if isinstance(example_input, torch.Tensor) else type(example_input).__name__
        raise UsageError(f"compile takes an example input: a float32 tensor of one batch, (n, …), not {given}")
    if model.training and "eval" in vars(model):  # torch.export put one there that refuses
        raise UsageError("the module of an exported program has no eval mode; compile the model it was exported from")
    if model.training:
        raise UsageError(
            "the model is in train mode; call model.eval() first, or batch norm would use batch statistics"
        )
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads={threads!r} can't be used; give a whole number of at least 1")
    count = torch.get_num_threads() if threads is None else threads
    return plugin.bind(spec)(model, example_input, threads=count, **options)
