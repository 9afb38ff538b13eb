"""One network measured: the engine, pruned and unpruned, against every dense way to run it, all in the same blocks."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from prunebench import backends, machine
from prunebench.answers import answer, arm, measured
from prunebench.cell import derive_seed
from prunebench.errors import BackendUnavailable
from prunebench.measure import BASELINES, Measured
from prunebench.questions import NetworkCase, input_of
from prunebench.reference import TOLERANCE, Reference
from prunebench.timing import Comparison, judge_all, sample

if TYPE_CHECKING:
    from torch import Tensor, nn

TRIAL_SHARE = 0.1  # of the time of a measurement; one block at least
DROPPED_ABOVE = 1.35  # a dense arm this much slower than the fastest in the trial is timed no further
SETTLE_SECONDS = 0.02  # threads of OpenMP, ONNX Runtime and OpenVINO spin for a while after their work
UNPRUNED = "csr_unpruned"


class NetworkBench:
    """Measures networks one after another; keeps the last unpruned one."""

    def __init__(self, timing_seconds: float = 3.0) -> None:
        self.timing_seconds = timing_seconds
        self._last: tuple[str, nn.Module] | None = None

    def measure(self, case: NetworkCase) -> Measured:
        """Everything about a case; raises CheckFailed where the engine's output is wrong, before any timing."""
        from prunebench import formats
        from prunebench.costs import count

        shape, _ = input_of(case.model)
        dense = self._dense(case.model)
        pruned = pruned_copy(dense, case.sparsity)
        x = network_input(shape, case.batch_size)
        with machine.threads(case.threads):
            engine, arms, calls = _prepared(case, dense, pruned, x)
            result, baseline = self._timed(case, arms, calls)
            costs = count(pruned, x[:1])
        facts = answer(
            "networks",
            case,
            input_shape=list(shape),
            arms=arms,
            relative_error=arms[case.backend]["relative_error"],
            disk_bytes=len(formats.to_bytes(pruned.state_dict())),
            dense_disk_bytes=len(formats.to_bytes(dense.state_dict(), "dense")),
            **measured(costs, int(engine.nbytes), result, baseline),
        )
        return Measured(facts, partial(engine, x))

    def failed(self, case: NetworkCase, reason: str) -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        return answer("networks", case, "failed", reason=reason)

    def _dense(self, model: str) -> nn.Module:
        if self._last is None or self._last[0] != model:
            self._last = (model, random_network(model))
        return self._last[1]

    def _timed(
        self, case: NetworkCase, arms: dict[str, Any], calls: dict[str, Callable[[], Any]]
    ) -> tuple[Comparison, str]:
        """Time every arm, write what came out into `arms`; returns the engine's comparison and its baseline's name."""
        settle = SETTLE_SECONDS if case.threads > 1 else 0.0
        ours = {case.backend, UNPRUNED}
        trial = sample(calls, "dense", seconds=TRIAL_SHARE * self.timing_seconds, least=1, settle=settle)
        control = _fastest(trial, calls, ours)
        limit = DROPPED_ABOVE * np.median(trial[control])
        kept = {n: c for n, c in calls.items() if n in ours or np.median(trial[n]) <= limit}
        samples = sample(kept, control, seconds=self.timing_seconds, settle=settle)
        # Which one is the fastest is decided by the blocks that count: the trial only chose whom to time on.
        baseline = _fastest(samples, kept, ours)
        found = judge_all(samples, baseline, control)
        fastest = float(np.median(samples[baseline]))
        for name in calls:
            if name in found:
                c = found[name]
                seen: dict[str, Any] = {
                    "seconds": c.seconds, "speedup": c.speedup, "speedup_low": c.low, "speedup_high": c.high,
                    "verdict": c.verdict, "blocks": c.blocks,
                }  # fmt: skip
            elif name == baseline:
                seen = {"seconds": fastest, "speedup": 1.0, "blocks": len(samples[baseline])}
            else:
                seconds = float(np.median(trial[name]))
                seen = {"seconds": seconds, "speedup": fastest / seconds, "blocks": len(trial[name])}
            arms[name].update(seen)
        return found[case.backend], baseline


def _fastest(samples: dict[str, list[float]], names: Any, ours: set[str]) -> str:
    return min((name for name in names if name not in ours), key=lambda name: float(np.median(samples[name])))


def _prepared(
    case: NetworkCase, dense: nn.Module, pruned: nn.Module, x: Tensor
) -> tuple[Any, dict[str, Any], dict[str, Callable[[], Any]]]:
    """(the engine on the pruned weights, facts of every arm, calls of those whose output is right)."""
    arms: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {}
    reference = Reference(dense, x)
    for name, backend, options in _ways(case, dense):
        reason = backends.unavailable(backend)
        start = time.perf_counter()
        try:
            if reason is not None:
                raise BackendUnavailable(reason)
            executor = backends.compile(dense, x, backend, case.threads, **options)
        except BackendUnavailable as why:
            arms[name] = arm("off", reason=str(why))
            continue
        ready = time.perf_counter() - start
        error = reference.error(executor)
        about: dict[str, Any] = {"relative_error": error, "compile_seconds": ready, "version": _version(backend)}
        if error <= TOLERANCE:
            arms[name] = arm(**about)
            calls[name] = partial(executor, x)
        else:
            arms[name] = arm("failed", reason=f"differs from the float64 reference by {error:.1e}", **about)
    for name, model, right in ((UNPRUNED, dense, reference), (case.backend, pruned, Reference(pruned, x))):
        start = time.perf_counter()
        engine = backends.compile(model, x, case.backend, case.threads)
        ready = time.perf_counter() - start
        arms[name] = arm(relative_error=right.check(engine, f"{case.id} ({name})"), compile_seconds=ready)
        calls[name] = partial(engine, x)
    return engine, arms, calls


def _ways(case: NetworkCase, model: nn.Module) -> list[tuple[str, str, dict[str, Any]]]:
    """(arm, backend, options) of every dense way asked for."""
    images = any(w.ndim == 4 for w in model.parameters())
    eager = [(name, "dense", dict(o)) for name, o in BASELINES.items() if name == "dense" or images]
    return [*eager, *((name, name, {}) for name in case.peers if name != "dense")]


def _version(backend: str) -> str | None:
    try:
        return metadata.version(backend) if backend in ("onnxruntime", "openvino") else None
    except metadata.PackageNotFoundError:
        return None


def random_network(name: str, seed: int = 0) -> nn.Module:
    """An eval-mode network with random weights and batch-norm statistics, as if it had been trained."""
    import torch
    from torch import nn

    from prunebench import models

    shape, classes = input_of(name)
    net = models.build(name, shape, classes, derive_seed(seed, "weights")).eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "statistics"))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
    return net


def pruned_copy(model: nn.Module, sparsity: float) -> nn.Module:
    """A copy pruned layer by layer by magnitude; a convolution on an image's three colours stays dense."""
    from torch import nn

    from prunebench.pruner import prune

    twin = copy.deepcopy(model)
    stems = [path for path, m in twin.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer of few weights keeps its best one is no news here
        prune(twin, sparsity, "l1", scope="layerwise", exclude=stems)
    return twin


def network_input(shape: tuple[int, int, int], batch: int, seed: int = 0) -> Tensor:
    """A float32 batch of normal random numbers, (batch, channels, height, width)."""
    import torch

    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(derive_seed(seed, "input")))
