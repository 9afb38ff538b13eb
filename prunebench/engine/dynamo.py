"""torch.compile(model, backend="prunebench"): each graph that TorchDynamo captures becomes an engine, or stays torch's.

An engine belongs to the weights it was made from: every call compares their identity, address and version, and
weights that changed get an engine of their own. Every new input shape is compared with torch once. What torch can't
see (a write through `.data`) isn't seen here either: call torch._dynamo.reset() after it.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from prunebench.engine.captured import Captured, LeftToTorch, bind, split_outputs
from prunebench.engine.compiler import compile_engine
from prunebench.engine.functional import lift
from prunebench.engine.lifted_layers import weighted
from prunebench.errors import UsageError, reason

_AGREE = 1e-4  # relative difference from torch above which a graph, or a shape of its input, is left to torch
_MOST_SHAPES = 4096  # input shapes whose comparison with torch is remembered
_MOST_ENGINES = 64  # sets of weights per graph: one piece of code may serve every block of a network
_MOST_CHANGES = 16  # times that weights may change before their graph is left to torch for good


def _warn(why: str) -> None:
    warnings.warn(f"prunebench: a graph of the compiled model runs in torch, because {why}", stacklevel=3)


def _leaves(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _agree(got: Any, want: Any) -> bool | None:
    """Whether outputs are alike within 1e-4 of the largest; None where infinite or NaN values hide it."""
    got, want = _leaves(got), _leaves(want)
    if len(got) != len(want):
        return False
    hidden = False
    for a, b in zip(got, want, strict=True):
        if not isinstance(b, torch.Tensor):
            if a != b:
                return False
            continue
        if not isinstance(a, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not b.is_floating_point():
            if not torch.equal(a, b):
                return False
        elif b.numel() and not bool(torch.isfinite(b).all()):
            hidden = True
        elif b.numel() and not float((a - b).abs().max()) <= _AGREE * float(b.abs().max()):
            return False
    return None if hidden else True


def _storages(values: Sequence[Any]) -> list[int]:
    tensors = [v for v in values if isinstance(v, torch.Tensor) and v.numel()]
    return [t.untyped_storage().data_ptr() for t in tensors]


def _check_effects(captured: Captured) -> None:
    """Runs the captured graph once, in torch, and refuses what an engine can't do: writes, views, chance, gradients."""
    module, x = captured.module, captured.example
    state = [*module.parameters(), *module.buffers(), x]
    if torch.is_autocast_enabled("cpu"):
        raise LeftToTorch("autocast is on, and the engine computes in float32")
    x_in = x.detach().requires_grad_(x.requires_grad)
    before, rng = [t._version for t in state], torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        out = _leaves(module(x_in))
        drawn = not torch.equal(rng, torch.get_rng_state())
    if drawn:
        raise LeftToTorch("it draws random numbers; call model.eval() to compile it for inference")
    if [t._version for t in state] != before:
        raise LeftToTorch("it writes to its input or its buffers; call model.eval() to compile it for inference")
    if any(isinstance(t, torch.Tensor) and t.requires_grad for t in out):
        raise LeftToTorch("it is called with gradients on; call it under torch.inference_mode() or torch.no_grad()")
    places = _storages(out)
    if len(set(places)) < len(places) or set(places) & set(_storages(state)):
        raise LeftToTorch("its outputs share memory with each other or with its input")


class _Bound:
    """An engine, or torch, for one set of weights."""

    def __init__(self, gm: fx.GraphModule, args: Sequence[Any], threads: int):
        captured = bind(gm, args)
        _check_effects(captured)
        wanted = [(x, captured.module(x)) for x in self._trials(captured.example.detach())]
        split_outputs(captured)
        module = lift(captured.module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.engine = compile_engine(module, captured.example.detach(), threads=threads)
        self.eager = gm.forward
        self.input = captured.input
        self.outputs = captured.outputs
        kept = [o[0] for o in self.outputs if o is not None and isinstance(o[0], torch.Tensor)]
        self.kept = [(t, t._version) for t in kept]
        self.weights = captured.weights
        self.stamps = [self._stamp(args[i]) for i in self.weights]
        self.numbers = list(captured.numbers.items())
        self.held = [(t, *self._stamp(t)[1:]) for t in captured.held]
        self.gradients = torch.is_grad_enabled()
        self.shapes: dict[torch.Size, bool] = {}
        if any(_agree(self._outputs(x), want) is False for x, want in wanted):
            raise LeftToTorch("the engine's result differs from torch's")

    @staticmethod
    def _stamp(t: torch.Tensor) -> tuple[Any, int, int, bool]:
        return weakref.ref(t), t._version, t.data_ptr(), t.requires_grad

    @staticmethod
    def _trials(example: torch.Tensor) -> list[torch.Tensor]:
        """The example may be all zeros, as in a warm-up, so noise has to agree too."""
        noise = torch.empty_like(example)
        if noise.is_floating_point():
            noise.normal_(generator=torch.Generator().manual_seed(0))
        return [example, noise]

    def same_objects(self, args: Sequence[Any]) -> bool:
        """Whether these are the tensors that the engine was made from, whatever they hold by now."""
        return all(args[i] is stamp[0]() for i, stamp in zip(self.weights, self.stamps, strict=True))

    def alive(self) -> bool:
        """Whether the weights still exist."""
        return all(stamp[0]() is not None for stamp in self.stamps)

    def fits(self, args: Sequence[Any]) -> bool:
        """Whether the weights are those that the engine was made from, unchanged."""
        if self.gradients is not torch.is_grad_enabled():
            return False
        for i, (ref, version, pointer, grad) in zip(self.weights, self.stamps, strict=True):
            t = args[i]
            if ref() is not t or t._version != version or t.data_ptr() != pointer or t.requires_grad is not grad:
                return False
        for t, version, pointer, grad in self.held:
            if t._version != version or t.data_ptr() != pointer or t.requires_grad is not grad:
                return False
        return all(args[i].item() == number for i, number in self.numbers)

    def __call__(self, *args: Any) -> Any:
        """The graph's outputs; a shape seen for the first time is compared with torch."""
        x = args[self.input]
        good = self.shapes.get(x.shape)
        if good is None:
            return self._first(x, args)
        return self._outputs(x) if good else self.eager(*args)

    def _outputs(self, x: torch.Tensor) -> tuple[Any, ...]:
        got = iter(_leaves(self.engine(x)))
        if not torch.is_inference_mode_enabled():  # the engine's tensors couldn't be saved for a later backward pass
            got = iter([t.clone() if isinstance(t, torch.Tensor) and t.is_inference() else t for t in got])
        return tuple(next(got) if kept is None else kept[0] for kept in self.outputs)

    def _first(self, x: torch.Tensor, args: Sequence[Any]) -> Any:
        want = self.eager(*args)
        try:
            same = _agree(self._outputs(x), want)
        except Exception as error:  # whatever an engine can't do, torch did it already
            _warn(f"the engine can't take an input of shape {tuple(x.shape)}: {reason(error)}")
            same = False
        else:
            if same is False:
                _warn(f"the engine's result differs from torch's for an input of shape {tuple(x.shape)}")
        if same is not None and len(self.shapes) < _MOST_SHAPES:
            self.shapes[x.shape] = same
        return want

    def untouched(self) -> bool:
        """Whether nobody wrote to an output that is handed out at every call."""
        return all(t._version == version for t, version in self.kept)


class CompiledGraph:
    """A captured graph with an engine for each set of weights it is called with; called as TorchDynamo calls it."""

    def __init__(self, gm: fx.GraphModule, args: Sequence[Any], threads: int):
        self.gm, self.threads = gm, threads
        self.engines: list[_Bound] = [_Bound(gm, args, threads)]
        self._changes = 0
        self._given_up = False
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        """The graph's outputs, by an engine where one fits."""
        for bound in self.engines:
            if bound.fits(args) and bound.untouched():
                return bound(*args)
        with self._lock:  # somebody else may have made it meanwhile
            made = next((b for b in self.engines if b.fits(args) and b.untouched()), None)
            if made is None and not self._given_up:
                made = self._another(args)
        return self.gm.forward(*args) if made is None else made(*args)

    def _another(self, args: Sequence[Any]) -> _Bound | None:
        """An engine for weights that no engine was made from, or None."""
        kept = [b for b in self.engines if b.alive() and not b.same_objects(args)]
        self._changes += any(b.alive() and b.same_objects(args) for b in self.engines)
        self.engines = kept
        try:
            if self._changes > _MOST_CHANGES or len(kept) >= _MOST_ENGINES:
                raise LeftToTorch("its weights keep changing")
            made = _Bound(self.gm, args, self.threads)
        except Exception as error:
            self._given_up = True
            _explain(error)
            return None
        self.engines = [made, *kept]
        return made


def _explain(error: Exception) -> None:
    why = str(error) if isinstance(error, (LeftToTorch, UsageError)) else reason(error)
    if why:
        _warn(" ".join(why.split()))


def _threads(options: dict[str, Any] | None) -> int:
    unknown = sorted(set(options or ()) - {"threads"})
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r} of the backend 'prunebench'; known: threads")
    threads = (options or {}).get("threads", torch.get_num_threads())
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads is {threads!r}; it must be a whole number, at least 1")
    return threads


def prunebench(
    gm: fx.GraphModule, example_inputs: Sequence[Any], *, options: dict[str, Any] | None = None, **others: Any
) -> Callable[..., Any]:
    """The TorchDynamo backend: a callable that gives what gm gives, within 1e-4 of its largest output.

    gm, example_inputs: as TorchDynamo captured them, for float32 inference on the CPU, with one real input tensor of
    any shape. options: {"threads": n}, None means torch.get_num_threads(). What the engine can't do runs in torch, gm
    as it came, with one warning that says why; a graph without convolution and linear layers does so silently. Zero
    weights aren't multiplied, so a NaN in an input reaches fewer outputs than in torch.
    UsageError: an unknown option. Source: the backend protocol of torch._dynamo.backends.registry.
    """
    threads = _threads(options)
    if others.get("mode"):
        warnings.warn(f"prunebench: torch.compile's mode {others['mode']!r} means nothing here", stacklevel=2)
    try:
        if weighted(gm):
            return CompiledGraph(gm, example_inputs, threads)
    except Exception as error:  # no extension, another dtype or device, an exotic graph: torch can do it
        _explain(error)
    return gm.forward
