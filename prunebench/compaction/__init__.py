"""Physical removal: a smaller dense network that computes what the pruned one does.

`prunebench.compact` follows the channels through one run of the model (flow), decides which can go (choice), cuts them
from a copy (cutting), follows the copy the same way, and compares the two in float64 before it hands the copy over.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from prunebench.compaction.choice import Reading, kept_channels, reading
from prunebench.compaction.classes import Classes
from prunebench.compaction.cutting import cut
from prunebench.compaction.flow import Flow
from prunebench.compaction.outputs import tensors_of
from prunebench.costs import Costs, count
from prunebench.errors import UsageError, reason

__all__ = ["CompactionWarning", "Report", "compact"]

TOLERANCE = 1e-5
ROWS = 4  # random inputs on which the two models are compared


class CompactionWarning(UserWarning):
    """Zeros that could not be removed; the message says which and why."""


@dataclass(frozen=True)
class Report:
    """What `compact` did; layers by name.

    before, after: counts (parameters, multiply-adds). widths: {layer: (filters before, after)} of layers that lost
    some. left: {layer: filters without a nonzero weight that are still there}. error: the outputs' largest difference
    over the largest output, in float64. note: why nothing was removed, where that is so.
    """

    before: Costs
    after: Costs
    widths: dict[str, tuple[int, int]]
    left: dict[str, int]
    error: float
    note: str = ""


def compact(model: nn.Module, example_input: Tensor) -> nn.Module:
    """A copy of the model without the filters and channels that are all zero; the given one is untouched.

    example_input: a batch (n, …) that the model takes. The copy is of the same class, with smaller layers, and computes
    the same in eval mode: to 1e-5 of the largest output, compared in float64 before it is returned. Its
    `compaction_report` is a `Report`: what went, what stayed.

    A filter goes where nothing downstream depends on it: its readers' weights for it are all zero, or what it puts out
    is a constant (its weights are zero, but biases and batch norms are not pruned) that its readers' biases can take.
    Where a reader pads with zeros a constant is no bias; then one of its constant channels stays and speaks for all.
    Channels that residual adds, products or a concatenation bring together go together or not at all; those that an
    operation mixes in a way not known here stay. Convolutions in groups stay in groups of equal size. Should the
    copy compute anything else (a model that writes through views, say), it is given up: an uncut copy comes back, with
    a CompactionWarning.

    In training mode the copy is a model of its own: batch statistics of channels that are gone are gone too.
    A compacted model has its own shapes: store it with `pb.save` and load it into a copy of itself (or pickle it
    whole with torch.save); the class's constructor makes the uncompacted one.
    Raises UsageError for what isn't a model or a tensor, and where the model can't be copied, can't take the example or
    returns no tensor.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"compact takes a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(example_input, Tensor) or example_input.ndim < 1 or len(example_input) < 1:
        raise UsageError("compact needs example_input, a tensor (n, …) with at least one sample that the model takes")
    x = example_input[:1].detach()
    base = _copied(model)
    before = _counted(base, x)
    small, note = _smaller(base, x)
    error = 0.0
    if small is not None:
        error = _error(base, small, example_input)
        if not error <= _tolerance(base):
            small, note = None, f"the smaller network's output differs by {error:.1e} of the largest"
    report = _report(base, base if small is None else small, x, before, 0.0 if small is None else error, note)
    result = base if small is None else small
    for old, new in zip(model.modules(), result.modules(), strict=True):
        new.training = old.training
    result.compaction_report = report  # type: ignore[assignment]
    if note:
        warnings.warn(f"compact removed nothing from {type(model).__name__}: {note}", CompactionWarning, stacklevel=2)
    return result


def _copied(model: nn.Module) -> nn.Module:
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise UsageError(f"{kind} is compiled, so its layers can't be cut; compact the model it was made from")
    for name, module in model.named_modules():
        masked = any(isinstance(h, BasePruningMethod) for h in module._forward_pre_hooks.values())
        if masked or hasattr(module, "parametrizations"):
            raise UsageError(
                f"layer {name!r} is pruned by torch.nn.utils.prune or parametrised; make that permanent first, "
                "with torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
            )
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:
        raise UsageError(f"{kind} can't be copied, so it can't be compacted: {reason(error)}") from error


def _counted(model: nn.Module, x: Tensor) -> Costs:
    try:
        return count(model, x)
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} can't be run on example_input {tuple(x.shape)}: {reason(error)}"
        ) from error


def _smaller(base: nn.Module, x: Tensor) -> tuple[nn.Module | None, str]:
    """A cut copy that runs and whose channels meet as they did; where one doesn't, what met there stays as well."""
    classes = Classes()
    flow = Flow(base, classes)
    if not flow.follow(x):
        raise UsageError(f"{type(base).__name__} returns nothing that holds a tensor, so no output can be compared")
    if not flow.layers:
        return None, "it has no conv or linear layer whose channels could be followed"
    readings = [reading(layer) for layer in flow.layers.values()]
    norms = list(flow.norms.values())
    roots = classes.roots()
    pinned = roots == 0
    classes.fixed = True
    while True:
        kept = kept_channels(readings, roots, pinned)
        if bool(kept.all()):
            return None, _why_nothing(readings)
        small = copy.deepcopy(base)
        cut(small, readings, norms, kept)
        trouble = _trouble(small, x, flow, kept)
        if trouble is None:
            return small, ""
        # Where an operation's own channels are all there, the cause lies before it: splitting in halves, say.
        for _, ids in reversed(flow.touched[: trouble + 1]):
            stuck = torch.isin(roots, roots[ids]) & ~kept
            if bool(stuck.any()):
                break
        pinned = pinned | stuck if bool(stuck.any()) else torch.ones_like(pinned)


def _trouble(small: nn.Module, x: Tensor, flow: Flow, kept: Tensor) -> int | None:
    """The first operation that fails or finds other channels than expected; None where all is well."""
    given = {
        **{r.name: (r.rows[kept[r.rows]], r.columns[kept[r.columns]]) for r in flow.layers.values()},
        **{n.name: (n.columns, n.columns[kept[n.columns]]) for n in flow.norms.values()},
    }
    second = Flow(small, flow.classes, given)
    try:
        second.follow(x)
    except Exception:  # whatever the model's own code raises on sizes that it didn't expect
        failed = len(second.touched) - 1
    else:
        same = zip(flow.touched, second.touched, strict=False)
        differing = (i for i, (a, b) in enumerate(same) if a[0] != b[0])
        failed = next(differing, -1 if len(flow.touched) == len(second.touched) else 0)
    return None if failed < 0 else min(failed, len(flow.touched) - 1)


def _why_nothing(readings: Sequence[Reading]) -> str:
    """Empty where there was nothing to remove."""
    dead = [r.layer.name for r in readings if not bool(r.layer.reads.any(1).all())]
    if not dead:
        return ""
    return (
        f"the filters that are all zero in {', '.join(dead)} are needed: what they put out is a constant that "
        "can't move, or meets an operation that can't lose channels"
    )


def _report(base: nn.Module, small: nn.Module, x: Tensor, before: Costs, error: float, note: str) -> Report:
    widths, left = {}, {}
    for name, module in small.named_modules():
        weight = module._parameters.get("weight")
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or weight is None:
            continue
        axis = 1 if getattr(module, "transposed", False) else 0
        old: Any = base.get_submodule(name).weight
        if old.shape[axis] != weight.shape[axis]:
            widths[name] = (old.shape[axis], weight.shape[axis])
        dead = int((~weight.detach().movedim(axis, 0).flatten(1).any(1)).sum())
        if dead:
            left[name] = dead
    return Report(before, count(small, x), widths, left, error, note)


def _error(base: nn.Module, small: nn.Module, example: Tensor) -> float:
    """The largest difference of outputs over the largest output, on the example and on random inputs like it."""
    batch = example[:ROWS].detach()
    if batch.is_floating_point():
        spread = batch.float().std(correction=0).nan_to_num(1.0).clamp_min(1.0)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(ROWS, *batch.shape[1:], generator=generator).to(batch)
        batch = torch.cat([batch, noise * spread.to(batch)])
    for double in (True, False):
        try:
            a, b = (_outputs(m, batch, double) for m in (base, small))
        except RuntimeError:
            if not double:
                raise
            continue  # a model that makes float32 tensors of its own
        if [t.shape for t in a] != [t.shape for t in b]:
            return float("inf")
        return max(_distance(*pair) for pair in zip(a, b, strict=True))
    raise AssertionError("unreachable")


def _distance(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    equal = (a == b) | (a.isnan() & b.isnan())
    off = (a - b).abs()[~equal]
    if not off.numel():
        return 0.0
    return float(off.nan_to_num(float("inf")).max() / a[a.isfinite()].abs().max().clamp_min(1e-30))


def _tolerance(model: nn.Module) -> float:
    # Constants that move into weights are rounded to the weights' own type.
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max([TOLERANCE, *(16 * torch.finfo(kind).eps for kind in kinds if kind != torch.float32)])


def _outputs(model: nn.Module, x: Tensor, double: bool) -> list[Tensor]:
    if double:
        model, x = copy.deepcopy(model).double(), x.double() if x.is_floating_point() else x
    with torch.inference_mode():
        # Clones: a model may hand out a view of what it overwrites next time.
        return [t.clone() for t in tensors_of(model(x))]
