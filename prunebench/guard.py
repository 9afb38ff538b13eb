"""A model as it was before code of others saw it: what that changed is told, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_HELD = {
    "_parameters": "the parameters",
    "_buffers": "the buffers",
    "_modules": "the layers",
    **{f"_{kind}_hooks": "the hooks" for kind in ("forward", "forward_pre", "backward", "backward_pre")},
}


@dataclass
class _Kept:
    """A parameter or buffer: the tensor itself, and what it held."""

    name: str
    tensor: Tensor
    values: Tensor
    requires_grad: bool
    grad: Tensor | None
    gradient: Tensor | None
    mark: Any = None


class Guard:
    """`found()` is cheap, and so fit for every layer: it sees what torch counts; `found(values=True)` compares all."""

    def __init__(self, model: nn.Module) -> None:
        self._switches = (torch.is_grad_enabled(), torch.get_default_dtype())
        self._modules = [
            (name, module, {held: dict(getattr(module, held)) for held in _HELD}, module.training)
            for name, module in model.named_modules()
        ]
        named = [*model.named_parameters(), *model.named_buffers()]
        self._kept = [
            _Kept(
                n, t, t.detach().clone(), t.requires_grad, t.grad, None if t.grad is None else t.grad.detach().clone()
            )
            for n, t in named
        ]

    def mark(self) -> None:
        """Remember how often torch has seen every tensor written, for `found()`."""
        for kept in self._kept:
            kept.mark = _mark(kept.tensor), _mark(kept.tensor.grad)

    def found(self, values: bool = False) -> str | None:
        """What isn't as it was, the first of all; None where nothing is."""
        return next(self._changes(values), None)

    def _changes(self, values: bool) -> Iterator[str]:
        if (torch.is_grad_enabled(), torch.get_default_dtype()) != self._switches:
            yield "torch's own settings"
        for name, module, held, training in self._modules:
            for attribute, before in held.items():
                now = getattr(module, attribute)
                if list(now) != list(before) or any(now[key] is not before[key] for key in before):
                    yield f"{_HELD[attribute]} of {name or 'the model'}"
            if module.training != training:
                yield f"the mode of {name or 'the model'}"
        for kept in self._kept:
            if kept.tensor.requires_grad != kept.requires_grad:
                yield f"requires_grad of {kept.name}"
            if kept.tensor.grad is not kept.grad:
                yield f"the gradient of {kept.name}"
            mark = _mark(kept.tensor), _mark(kept.tensor.grad)
            for i, (what, now, then) in enumerate(
                (("values", kept.tensor, kept.values), ("gradient", kept.grad, kept.gradient))
            ):
                if not _equal(now, then) if values else kept.mark is not None and mark[i] != kept.mark[i]:
                    yield f"the {what} of {kept.name}"

    def restore(self) -> None:
        """Put everything back, the very tensors that an optimizer holds included."""
        torch.set_grad_enabled(self._switches[0])
        torch.set_default_dtype(self._switches[1])
        for _, module, held, training in self._modules:
            for attribute, before in held.items():
                now = getattr(module, attribute)
                now.clear()
                now.update(before)
            module.training = training
        for kept in self._kept:
            _write(kept.tensor, kept.values)
            kept.tensor.requires_grad_(kept.requires_grad)
            if kept.grad is not None and kept.gradient is not None:
                _write(kept.grad, kept.gradient)
            if kept.tensor.grad is not kept.grad:
                kept.tensor.grad = kept.grad


def _mark(tensor: Tensor | None) -> tuple[int, int] | None:
    # Writes through .data aren't counted, other memory behind a tensor is seen.
    if tensor is None or tensor.is_inference():
        return None
    return tensor._version, tensor.data_ptr()


def _equal(now: Tensor | None, then: Tensor | None) -> bool:
    if now is None or then is None:
        return now is then
    if now.shape != then.shape or now.dtype != then.dtype:
        return False
    return torch.equal(now, then) or bool(((now == then) | (now.isnan() & then.isnan())).all())


def _write(tensor: Tensor, values: Tensor) -> None:
    if not _equal(tensor.detach(), values):
        tensor.data = values
