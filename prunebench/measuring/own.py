"""Somebody's own network measured on this machine: dense, and at several sparsities through the engine.

All arms are timed in the same interleaved blocks. Accuracy is no question here: the network is pruned at once, and
nothing is known of its data.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prunebench import backends, criteria, formats, machine
from prunebench.errors import BackendUnavailable, UsageError, reason
from prunebench.measuring import networks as rules
from prunebench.measuring.grid import BASELINES
from prunebench.outputs import logits
from prunebench.reference import TOLERANCE, Reference
from prunebench.timing import CONTROL, Comparison, judge_all, sample

if TYPE_CHECKING:
    from torch import Tensor, nn

PEERS = ("torch_compile", "onnxruntime", "openvino")
SPARSE_ALREADY = 0.05  # a network with so many zeros was pruned by somebody
ENGINE = "csr"
Begins = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is asked: sparsities in [0, 1), how to prune, threads, seconds of timing, whether other runtimes run too."""

    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95)
    criterion: str = "l1"
    scope: str = "global"
    threads: int = 1
    seconds: float = 5.0
    peers: bool = False


@dataclass
class Way:
    """One way to run the network, and what came out; times in seconds per batch."""

    name: str
    backend: str
    sparsity: float  # of the prunable weights
    status: str = "ok"  # or off, failed
    reason: str | None = None
    relative_error: float | None = None
    resident_bytes: int | None = None
    disk_bytes: int | None = None
    seconds: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    verdict: str | None = None
    blocks: int | None = None
    left_to_torch: list[str] = field(default_factory=list)
    form: str | None = None


@dataclass
class Report:
    """All of it: the network's counts, and the ways that ran it. baseline: the fastest dense one."""

    parameters: int
    prunable: int
    nonzeros: int
    macs: int
    input_shape: list[int]
    threads: int
    criterion: str
    scope: str
    baseline: str | None
    ways: list[Way]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def dense(self) -> list[Way]:
        """The dense ways, the baseline among them."""
        return [w for w in self.ways if w.backend != ENGINE]

    @property
    def sparse(self) -> list[Way]:
        """The engine at rising sparsities."""
        return sorted((w for w in self.ways if w.backend == ENGINE), key=lambda w: w.sparsity)


def measure(model: nn.Module, x: Tensor, wanted: Wanted, begins: Begins = lambda what: None) -> Report:
    """Everything about an eval-mode float32 model on a batch x (n, …); `begins` is told each step.

    UsageError where the model can't take x, returns no tensor, or a criterion needs what isn't here.
    """
    from prunebench.costs import count
    from prunebench.masks import masks_of, prunable_modules, sparsity_of
    from prunebench.reparametrised import plain_copy

    if (off := backends.unavailable(ENGINE)) is not None:
        raise BackendUnavailable(f"backend {ENGINE!r} is off: {off}")
    with machine.threads(wanted.threads):
        model = tensor_model(plain_copy(model), x)
        prunable_modules(model)
        if (needed := criteria.missing(wanted.criterion, model, None)) is not None:
            raise UsageError(
                f"criterion {wanted.criterion!r} needs {needed}, and here is no data; use l1, l2 or random, or "
                "prune it with pb.prune(…, data=…) and give the saved weights"
            )
        costs = count(model, x[:1])
        own = sparsity_of(masks_of(model))
        notes: list[str] = []
        begins("pruning")
        networks = _networks(model, wanted, own, notes)
        ways, calls = _prepared(model, own, networks, x, wanted, begins)
        dense = [w.name for w in ways if w.backend != ENGINE and w.name in calls]
        share = rules.TEAM_SHARE if wanted.threads > 1 else 1
        begins(f"timing {len(calls)} ways for about {wanted.seconds * share:.0f} s")
        baseline = _timed({w.name: w for w in ways}, calls, dense, wanted) if dense and len(calls) > 1 else None
    shape, counted = list(x.shape), (costs.parameters, costs.prunable, costs.nonzeros, costs.macs_dense)
    return Report(*counted, shape, wanted.threads, wanted.criterion, wanted.scope, baseline, ways, notes)


def tensor_model(model: nn.Module, x: Tensor) -> nn.Module:
    """The model, or one around it that returns its logits; UsageError where it can't take x or returns no tensor."""
    import torch

    class Logits(torch.nn.Module):
        """The logits alone of a model that returns more."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return logits(self.model(x))

    try:
        with torch.inference_mode():
            output = model(x)
    except Exception as error:
        shape = ",".join(map(str, x.shape))
        raise UsageError(f"the model can't take an input of {shape}: {reason(error)[:200]}; give --input") from error
    found = logits(output)
    if found.ndim < 1 or len(found) != len(x):
        raise UsageError(f"the model returns {tuple(found.shape)} for a batch of {len(x)}; it has to return a row each")
    if not bool(torch.isfinite(found).all()):
        raise UsageError(
            "the model returns NaN or infinity for random input; check its weights, or give another --input"
        )
    return model if isinstance(output, torch.Tensor) else Logits().eval()


def _networks(model: nn.Module, wanted: Wanted, own: float, notes: list[str]) -> list[tuple[float, nn.Module]]:
    """(sparsity, network) from the one that came to the sparsest; what it has already isn't pruned again."""
    from prunebench.masks import masks_of, sparsity_of
    from prunebench.pruner import prune

    found = [(own, model)]
    warned: dict[str, list[str]] = {}
    for sparsity in sorted(set(wanted.sparsities)):
        if sparsity <= own:
            if sparsity:
                notes.append(f"{100 * sparsity:g} % is left out: {100 * own:.1f} % of the weights are zero already")
            continue
        twin = copy.deepcopy(model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            prune(twin, sparsity, wanted.criterion, wanted.scope)
        for text in dict.fromkeys(str(w.message) for w in said):
            warned.setdefault(text, []).append(f"{100 * sparsity:g}")
        found.append((sparsity_of(masks_of(twin)), twin))
    notes.extend(f"at {', '.join(at)} %: {text}" for text, at in warned.items())
    return found


def _prepared(
    model: nn.Module, own: float, networks: Sequence[tuple[float, nn.Module]], x: Tensor, wanted: Wanted, begins: Begins
) -> tuple[list[Way], dict[str, Callable[[], Any]]]:
    """Every way with its error and bytes, and the calls of those whose output is right."""
    ways: list[Way] = []
    calls: dict[str, Callable[[], Any]] = {}
    images = any(w.ndim == 4 for w in model.parameters())
    dense: dict[str, tuple[str, dict[str, Any]]] = {
        name: ("dense", options) for name, options in BASELINES.items() if name == "dense" or images
    }
    dense |= {name: (name, {}) for name in PEERS if wanted.peers}
    right = Reference(model, x)
    dense_bytes = len(formats.to_bytes(model.state_dict(), "dense"))
    for name, (backend, options) in dense.items():
        begins(f"preparing {name}")
        way = Way(name, backend, own, disk_bytes=dense_bytes)
        ways.append(way)
        _build(way, model, x, right, wanted, calls, options)
    for n, (sparsity, network) in enumerate(networks):
        way = Way(
            f"{ENGINE}_{'unpruned' if n == 0 and own < SPARSE_ALREADY else f's{1000 * sparsity:.0f}'}", ENGINE, sparsity
        )
        begins(f"compiling at {100 * sparsity:.0f} %")
        way.disk_bytes = len(formats.to_bytes(network.state_dict()))
        ways.append(way)
        executor = _build(way, network, x, Reference(network, x), wanted, calls, {})
        if executor is not None:
            way.form, way.left_to_torch = executor.engine.form, left_to_torch(executor, network)
    return ways, calls


def _build(
    way: Way, model: nn.Module, x: Tensor, right: Reference, wanted: Wanted, calls: dict[str, Callable[[], Any]],
    options: dict[str, Any],
) -> Any:  # fmt: skip
    try:
        executor = backends.compile(model, x, way.backend, wanted.threads, **options)
        way.relative_error = right.error(executor)
    except BackendUnavailable as why:
        way.status, way.reason = "off", str(why)
        return None
    way.resident_bytes = int(executor.nbytes)
    if not way.relative_error <= TOLERANCE:
        way.status, way.reason = "failed", f"differs from the float64 reference by {way.relative_error:.1e}"
        return executor
    calls[way.name] = partial(executor, x)
    return executor


def _timed(ways: dict[str, Way], calls: dict[str, Callable[[], Any]], dense: Sequence[str], wanted: Wanted) -> str:
    """Times what is ready and writes what came out into `ways`; returns the fastest dense one, the baseline."""
    pace: Any = {"settle": rules.SETTLE_SECONDS, "arm_seconds": rules.TEAM_SECONDS} if wanted.threads > 1 else {}

    def fastest(samples: dict[str, list[float]]) -> str:
        return min((n for n in dense if n in samples), key=lambda name: float(np.median(samples[name])))

    trial = sample(calls, dense[0], seconds=rules.TRIAL_SHARE * wanted.seconds, least=rules.TRIAL_BLOCKS, **pace)
    control = fastest(trial)
    limit = rules.DROPPED_ABOVE * np.median(trial[control])
    kept = {n: c for n, c in calls.items() if n not in dense or min(trial[n]) <= limit}
    samples = sample(kept, control, seconds=wanted.seconds * (rules.TEAM_SHARE if pace else 1), **pace)
    baseline = fastest(samples)
    found = judge_all(samples, baseline, control)
    base = float(np.median(samples[baseline]))
    for name in calls:
        way = ways[name]
        if name in found:
            _compared(way, found[name])
        else:
            seen = samples.get(name, trial[name])
            way.seconds, way.blocks = float(np.median(seen)), len(seen)
            way.speedup = base / way.seconds
    assert CONTROL in samples
    return baseline


def _compared(way: Way, c: Comparison) -> None:
    way.seconds, way.speedup, way.speedup_low, way.speedup_high = c.seconds, c.speedup, c.low, c.high
    way.verdict, way.blocks = c.verdict, c.blocks


_WHOLE = {
    "frozen": "torch.jit's frozen form is faster than the engine",
    "channels_last": "torch in channels_last is faster than the engine",
    "untouched": "the model can be neither traced nor captured",
}


def left_to_torch(executor: Any, model: nn.Module) -> list[str]:
    """One line per layer that torch runs, with the reason; a network that torch runs as a whole is one line."""
    import torch

    from prunebench.engine.compiler import SPARSE_FROM

    rows = [row for row in executor.summary() if row["kernel"] == "torch"]
    form = executor.engine.form
    if form in _WHOLE and rows:
        return [f"all {len(rows)} layers: {_WHOLE[form]}"]
    found = []
    for row in rows:
        dense = row["sparsity"] < SPARSE_FROM
        why = (
            f"only {100 * row['sparsity']:.0f} % of it is zero" if dense else "it is of a kind the engine leaves alone"
        )
        found.append(f"{row['layer']} {tuple(row['shape'])}: {why}")
    known = (torch.nn.Conv2d, torch.nn.Linear)
    for name, module in model.named_modules():
        other = isinstance(module, (torch.nn.modules.conv._ConvNd, torch.nn.MultiheadAttention))
        if other and not isinstance(module, known):
            found.append(f"{name}: the engine knows no {type(module).__name__}")
    return found
