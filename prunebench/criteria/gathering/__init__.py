"""Gathering: what a criterion may ask for with `needs=(…)`, one file each, and the harness that hands it over.

A need reads the model and the data and leaves both as they were. Layers are served in groups whose gathered values
fit into GROUP_BYTES together, so that memory stays bounded however large the model is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from prunebench.attention import unpacked
from prunebench.criteria.gathering import (
    activations,
    gradients,
    hessian_product,
    input_gram,
    input_norms,
    movement,
    norm_scale,
    per_sample,
    sample_gradients,
    synaptic_flow,
)
from prunebench.criteria.gathering.run import Run, batch_norms, cross_entropy, evaluating
from prunebench.errors import UsageError, unknown
from prunebench.spec import Spec

__all__ = ["GROUP_BYTES", "NEEDS", "Layer", "Need", "check_need", "gather", "missing", "observer"]

GROUP_BYTES = 2**30


@dataclass(frozen=True)
class Need:
    """One thing that can be asked for.

    attribute: its name on the layer; gather(run, names, **params) -> {name: value}; bytes_of(module): what one
    layer's value takes beyond a few times its weight; data: "batches" of (x, y), "shape" (of one input), or
    "optional"; observer(modules): made by a Pruner, told of every training step, handed to gather as run.watched.
    """

    attribute: str
    gather: Callable[..., Mapping[str, Any]]
    bytes_of: Callable[[Any], int] = lambda module: 0
    data: str = "batches"
    observer: Callable[[Mapping[str, Any]], Any] | None = None


NEEDS: dict[str, Need] = {
    "gradients": Need("grad", gradients.gather),
    "activations": Need("activations", activations.gather),
    "per_sample_gradients": Need("per_sample_gradients", per_sample.streams),
    "sample_gradients": Need("sample_gradients", sample_gradients.gather),
    "squared_gradients": Need("squared_grad", per_sample.squares),
    "hessian_diag": Need("hessian_diag", per_sample.squares),
    "hessian_product": Need("hessian_product", hessian_product.gather),
    "input_norms": Need("input_norms", input_norms.gather),
    "input_gram": Need("input_gram", input_gram.gather, input_gram.bytes_of),
    "synaptic_flow": Need("synaptic_flow", synaptic_flow.gather, data="shape"),
    "movement": Need("movement", movement.gather, data="optional", observer=movement.MovementObserver),
    "norm_scale": Need("norm_scale", norm_scale.gather, data="optional"),
}
_NEED_OF = {need.attribute: name for name, need in reversed(NEEDS.items())}


class Layer:
    """What a criterion sees of one layer: name, module, weight (detached) and whatever it declared to need.

    grad, squared_grad, hessian_diag, hessian_product, input_norms, synaptic_flow, movement: of the weight's shape;
    activations (samples, …); per_sample_gradients: an iterable of (n, *weight) blocks;
    sample_gradients: a SampleGradients, all samples of some weights at a time; input_gram (groups, K, K);
    norm_scale (outputs,) or None. What each holds stands in its file.
    """

    def __init__(self, name: str, module: Any, **gathered: Any) -> None:
        self.name, self.module = name, module
        self.weight: Tensor = module.weight.detach()
        self.__dict__.update(gathered)

    def __getattr__(self, name: str) -> Any:
        if name in _NEED_OF:
            raise AttributeError(f"layer.{name} was not asked for; declare needs=({_NEED_OF[name]!r},)")
        raise AttributeError(f"a layer has no {name!r}; it has name, module, weight and what needs=(…) names")


def _need(text: str) -> tuple[str, Need, Callable[..., Mapping[str, Any]]]:
    spec = Spec.parse(text, "need")
    need = NEEDS[spec.name]
    return spec.name, need, partial(need.gather, **dict(spec.params))


def check_need(text: str) -> None:
    """UsageError for a need that isn't known, or for a parameter that it doesn't take."""
    spec = Spec.parse(text, "need")
    if spec.name not in NEEDS:
        raise unknown("need", spec.name, NEEDS)
    parameters = inspect.signature(NEEDS[spec.name].gather).parameters.values()
    known = [p.name for p in parameters if p.default is not p.empty]
    for key, value in spec.params:
        if key not in known:
            raise unknown(f"parameter of need {spec.name!r}:", key, known)
        if not isinstance(value, (int, float)) or not value > 0:
            raise UsageError(f"need {spec.name!r}: {key}={value} can't be used; give a number above 0")


def missing(needs: Sequence[str], model: nn.Module, data: Any) -> str | None:
    """What `data` is wanted for and isn't there, or None: told before anything is computed."""
    for text in needs:
        name, need, _ = _need(text)
        if need.data == "batches" and data is None:
            return f"data ({name}); pass data=[(x, y), …]"
        if need.data == "shape" and not synaptic_flow.knows_shape(model, data):
            return (
                f"data for an input's shape ({name}); pass data=[(x, y), …], of which only the shape is read, "
                "or set model.input_shape = (channels, height, width)"
            )
    return None


def observer(needs: Sequence[str], modules: Mapping[str, Any]) -> Any:
    """The observer of a training that these needs ask for, or None."""
    for text in needs:
        made = _need(text)[1].observer
        if made is not None:
            return made(modules)
    return None


def gather(
    model: nn.Module,
    modules: Mapping[str, Any],
    needs: Sequence[str],
    data: Iterable[tuple[Any, Any]] | None,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
    criterion: str,
    watched: Any = None,
    batch_norm: str = "running",
) -> Iterator[Layer]:
    """The layers one by one, in the modules' order, with what was asked for; each is best forgotten after use.

    The model's weights, gradients, buffers, hooks and modes are left as they were, between layers too.
    Raises UsageError where data is missing, empty or not of (x, y), or where a need can't be met.
    """
    wanted = missing(needs, model, data)
    if wanted is not None:
        raise UsageError(f"criterion {criterion!r} needs {wanted}")
    if isinstance(data, Iterator):
        data = list(data)  # a generator can be read once, a need may read twice
    norms = batch_norms(model, batch_norm)
    run = Run(model, modules, data, loss or cross_entropy, criterion, watched, norms)
    parsed = [_need(text) for text in needs]
    for names in _groups(modules, [need for _, need, _ in parsed]):
        gathered: dict[str, dict[str, Any]] = {name: {} for name in names}
        for _, need, function in parsed:
            with evaluating(model), unpacked(model, modules):
                values = function(run, names)
            for name in names:
                gathered[name][need.attribute] = values[name]
            del values
        for name in names:
            yield Layer(name, modules[name], **gathered.pop(name))


def _groups(modules: Mapping[str, Any], needs: Sequence[Need]) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for name, module in modules.items():
        size = sum(need.bytes_of(module) for need in needs)
        if group and total + size > GROUP_BYTES:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group
