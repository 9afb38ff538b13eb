"""compile_engine: checks the model, copies it, and tries from the fastest form of the engine to the safest."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_flatten, tree_map

from prunebench.engine.capturing import Refused, Repacked, capture
from prunebench.engine.choice import Choice
from prunebench.engine.dense import Frozen, fastest, keeps_nan, torch_forms
from prunebench.engine.functional import lift
from prunebench.engine.native_loader import native
from prunebench.engine.partition import fold_norms, partition, swap_products
from prunebench.engine.purify import purify
from prunebench.engine.ranks import fold_ranks
from prunebench.engine.runtime import Engine
from prunebench.engine.segment import Segment
from prunebench.engine.tracing import trace
from prunebench.errors import UsageError
from prunebench.reparametrised import plain_copy

SPARSE_FROM = 0.4  # see docs/engine-notes.md
_DENSE_NATIVE = 1 << 21  # weights of a dense layer that goes with the sparse ones around it
_IMAGES = 2  # that a long example is cut down to for tracing and checking
_CHECK_SECONDS = 0.5  # up to which the whole example is checked
_AGREE = 1e-3  # relative difference on the example input above which a form of the engine is given up


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
    for name, module in model.named_modules():
        if module.training:
            where = f"its layer {name!r} is" if name else "it is"
            raise UsageError(f"the model can't be compiled while {where} in training mode; call model.eval() first")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, t in tensors:
        if t.device.type != "cpu":
            raise UsageError(f"{name} is on {t.device}; the engine runs on the CPU: call model.cpu() first")
        if t.is_floating_point() and t.dtype != torch.float32:
            raise UsageError(f"{name} is {t.dtype}; the engine computes in float32: call model.float() first")
        if t.is_floating_point() and not bool(torch.isfinite(t.detach()).all()):
            layer = name.rpartition(".")[0] or "the model"
            raise UsageError(f"layer {layer!r}: {name} holds NaN or infinite values; nothing can be computed with it")


def _check_example(example: torch.Tensor) -> None:
    if not isinstance(example, torch.Tensor):
        raise UsageError(f"example_input must be one torch tensor, not {type(example).__name__}")
    if example.dtype != torch.float32 or example.device.type != "cpu":
        raise UsageError(f"example_input must be a float32 CPU tensor, not {example.dtype} on {example.device}")


def _check_call(model: nn.Module, example: torch.Tensor) -> None:
    try:
        inspect.signature(model.forward).bind(example)
    except TypeError as error:
        raise UsageError(f"the model can't be called with one tensor, which the engine wants: {error}") from None
    except ValueError:  # a forward written in C says nothing about its arguments
        return


def private_copy(model: nn.Module) -> nn.Module:
    """A copy with every reparametrisation made permanent, and without gradients."""
    twin = plain_copy(model)
    for p in twin.parameters():
        p.requires_grad_(False)
    # a model that is one layer becomes a layer of a model: a root can be neither traced as a module nor replaced
    return nn.Sequential(twin).eval() if type(twin) in (nn.Conv2d, nn.Linear) else twin


def _sparsity(weight: torch.Tensor) -> float:
    return 1.0 - int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 0.0


def _chooser(model: nn.Module, sparse_from: float) -> Callable[[nn.Module], bool]:
    """Which products run natively: the sparse ones, and in their company the dense ones that aren't large."""
    products = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m.weight.numel()]
    sparse = {id(m) for m in products if _sparsity(m.weight) >= sparse_from}
    small = {id(m) for m in products if sparse and m.weight.numel() <= _DENSE_NATIVE}
    return lambda m: id(m) in sparse or id(m) in small


def _traced(model: nn.Module, example: torch.Tensor, sparse_from: float, threads: int) -> nn.Module:
    return _native(lift(fold_ranks(trace(private_copy(model)), example)), example, sparse_from, threads)


def _captured(model: nn.Module, example: torch.Tensor, sparse_from: float, threads: int) -> nn.Module:
    if isinstance(model, fx.GraphModule):
        raise Refused("it is a graph already")
    with torch.inference_mode(False):
        twin = private_copy(model)
    graph, spec = capture(twin, example)
    made = _native(graph, example, sparse_from, threads)
    form = made if spec is None else Repacked(made, spec)
    form.one_shape = True  # type: ignore[assignment]
    return form


def _native(graph: fx.GraphModule, example: torch.Tensor, sparse_from: float, threads: int) -> fx.GraphModule:
    free = purify(graph)
    fold_norms(graph)
    chosen = _chooser(graph, sparse_from)
    if any(chosen(m) for m in graph.modules()):
        partition(graph, example, chosen, threads, free)
        only_sparse = _chooser(graph, sparse_from)
        swap_products(graph, lambda m: only_sparse(m) and _sparsity(m.weight) >= sparse_from, threads)  # type: ignore[arg-type]
    return graph


def _swapped(model: nn.Module, example: torch.Tensor, sparse_from: float, threads: int) -> nn.Module:
    twin = private_copy(model)
    swap_products(twin, lambda m: _sparsity(m.weight) >= sparse_from, threads)  # type: ignore[arg-type]
    return twin


def _untouched(model: nn.Module, example: torch.Tensor, sparse_from: float, threads: int) -> nn.Module:
    return private_copy(model)


# (model, example, sparsity from which on, threads) -> module: from the fastest form to the safest
_FORMS: tuple[Callable[[nn.Module, torch.Tensor, float, int], nn.Module], ...] = (
    _traced, _captured, _swapped, _untouched,
)  # fmt: skip


def _agrees(got: object, want: object) -> bool:
    a, b = tree_flatten(got)[0], tree_flatten(want)[0]
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
            continue
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        if x.numel() and bool(torch.isfinite(y).all()):
            scale = float(y.abs().max()) or 1.0
            if not float((x - y).abs().max()) <= _AGREE * scale:
                return False
    return True


def _first(value: object, images: int, of: int) -> object:
    """The first images of every output; ValueError where an output's first dimension isn't the images."""

    def cut(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        if not t.dim() or t.shape[0] != of:
            raise ValueError("an output without images")
        return t[:images]

    return tree_map(cut, value)


def _right(module: nn.Module, model: nn.Module, example: torch.Tensor, want: object, seconds: float) -> bool:
    """Whether the form computes on the example what the model does; of a batch that takes long, on its first images."""
    got, n = module(example), example.shape[0]
    few = min(n, _IMAGES)
    if few < n and seconds / few * n <= _CHECK_SECONDS:
        return _agrees(got, model(example))
    if few < n:
        try:
            got = _first(got, few, n)
        except ValueError:
            want = model(example)
    return _agrees(got, want)


def compile_engine(
    model: nn.Module, example_input: torch.Tensor, threads: int | None = None, sparse_from: float = SPARSE_FROM,
    tune: bool | list[dict[str, Any]] = False,
) -> Engine:  # fmt: skip
    """An Engine that computes what the eval-mode model computes, its sparse layers by the native kernels.

    example_input: one float32 CPU tensor as the model takes it; other batch sizes run too, at their best when some
    were compiled for theirs. threads: None means torch.get_num_threads(). Layers with at least the share `sparse_from`
    of zeros become sparse, the rest runs in torch unless it is small. tune: choose layouts and tiles by measuring them
    (seconds), or as a former engine's `choices` say, or (False) by a model of the caches. The model isn't changed.
    UsageError: training mode, another dtype or device, NaN or infinite weights. BackendUnavailable: no C extension.
    Source: direct sparse convolution as SkimCaffe (Park et al., ICLR 2017) with images or regions in the lanes.
    """
    native()
    _check_model(model)
    _check_example(example_input)
    _check_call(model, example_input)
    threads = torch.get_num_threads() if threads is None else threads
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads is {threads!r}; it must be a whole number, at least 1")
    threads = min(threads, native().cores())
    choices = _choices(tune)
    example = example_input.detach().resolve_neg()
    small = example[:_IMAGES] if example.dim() in (2, 4) else example
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        start = time.perf_counter()
        with _watching(model) as idle:
            want = model(small)
        seconds = time.perf_counter() - start
        for form in _FORMS:
            try:
                module = form(model, small, sparse_from, threads)
                if form is _untouched:
                    break
                _hand_out(module, tune is True, choices, idle)
                if _right(module, model, example, want, seconds):
                    break
            except Exception:  # control flow, exotic modules: whatever fails, the next form is safer
                if form is _untouched:
                    raise
        name = form.__name__.strip("_")
        if tune is True and any(isinstance(m, (nn.Conv2d, nn.Linear)) for m in module.modules()):
            name, module = _compared(model, name, module, small, example, threads, want, seconds)
    return Engine(module, example, threads, name)


def _compared(
    model: nn.Module, name: str, module: nn.Module, small: torch.Tensor, example: torch.Tensor, threads: int,
    want: object, seconds: float,
) -> tuple[str, nn.Module]:  # fmt: skip
    """Where torch would run some products: the fastest of that, of all products here, and of all by torch."""

    def native_all() -> nn.Module:
        made = (_captured if name == "captured" else _traced)(model, small, 0.0, threads)
        _hand_out(made, True, [], {})
        return made

    def right(candidate: nn.Module) -> bool:
        few = example[:1]  # another batch size: what was traced must not be bound to one
        fits = example.shape[0] == 1 or _agrees(candidate(few), model(few))
        fits = fits and (not isinstance(candidate, Frozen) or keeps_nan(candidate, model, example))
        return fits and _right(candidate, model, example, want, seconds)

    more = {"native": native_all, **torch_forms(private_copy(model), example)}
    return fastest({name: module}, more, right, example)


def _choices(tune: bool | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(tune, bool):
        return []
    if not isinstance(tune, list) or not all(isinstance(c, dict) for c in tune):
        raise UsageError("tune must be True, False or what an engine's `choices` gave: a list of dicts")
    try:
        for c in tune:
            Choice.from_dict(c)
            int(c["segment"]), int(c["images_at_a_time"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"tune: {error}; pass what an engine's `choices` gave") from None
    return tune


@contextmanager
def _watching(model: nn.Module) -> Iterator[dict[str, float]]:
    """{linear layer: share of zeros among its inputs} of what runs meanwhile."""
    shares: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].numel():
                shares[name] = float((inputs[0] == 0).float().mean())

        return hook

    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_pre_hook(watch(name)) for name, m in found]
    try:
        yield shares
    finally:
        for hook in hooks:
            hook.remove()


def _hand_out(module: nn.Module, tune: bool, choices: list[dict[str, Any]], idle: dict[str, float]) -> None:
    """Tells every segment whether to measure, or what was chosen for it before."""
    for number, segment in enumerate(m for m in module.modules() if isinstance(m, Segment)):
        segment.measure = tune
        for op in segment.layers:
            op.weights.idle = idle.get(op.name, 0.0)
        for c in choices:
            if int(c["segment"]) == number:
                segment.choices[int(c["images_at_a_time"])] = Choice.from_dict(c)
