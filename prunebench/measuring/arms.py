"""The ways to run a network, each built from plain values alone: here, or in a process of its own."""

from __future__ import annotations

import base64
import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunebench import backends, machine, models, registry
from prunebench.backends import needs
from prunebench.cell import derive_seed
from prunebench.measuring.grid import BASELINES
from prunebench.measuring.workers import Worker
from prunebench.pruner import prune
from prunebench.questions import NetworkCase, input_of
from prunebench.reference import Reference, rows_checked

UNPRUNED = "csr_unpruned"
_FACTORY = "prunebench.measuring.arms:built"


@dataclass(frozen=True)
class Way:
    """An arm: which backend runs which weights."""

    name: str
    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pruned: bool = False


@dataclass(frozen=True)
class Prepared:
    """An arm that is ready: what `sample` times, its facts, the error of its output and the bytes of its weights."""

    arm: Any
    facts: dict[str, Any]
    error: float
    nbytes: int


def ways(case: NetworkCase, images: bool) -> list[Way]:
    """Every dense way asked for, then the engine on all weights and on the pruned ones; images: convolutions occur."""
    eager = [Way(name, "dense", options) for name, options in BASELINES.items() if name == "dense" or images]
    peers = [Way(name, name) for name in case.peers if name != "dense"]
    return [*eager, *peers, Way(UNPRUNED, case.backend), Way(case.backend, case.backend, pruned=True)]


def prepared_here(way: Way, case: NetworkCase, model: nn.Module, right: Reference) -> Prepared:
    """The arm in this process; BackendUnavailable where it can't run here."""
    executor, facts = _compiled(way.backend, way.options, model, right.x, case.threads)
    return Prepared(partial(executor, right.x), facts, right.error(executor), int(executor.nbytes))


def worker(way: Way, case: NetworkCase) -> Worker:
    """A process for the arm, starting up."""
    return Worker(way.name, _FACTORY, _modules(way.backend, case.model))


def prepared_apart(way: Way, case: NetworkCase, process: Worker, right: Reference) -> Prepared:
    """The arm in its process; BackendUnavailable as above, WorkerFailed where the process is lost."""
    facts = process.prepare(
        model=case.model,
        sparsity=case.sparsity if way.pruned else None,
        batch_size=case.batch_size,
        threads=case.threads,
        backend=way.backend,
        options=dict(way.options),
    )
    # Checked here: what is to be checked never says by itself that it is right.
    output = torch.from_numpy(np.frombuffer(base64.b64decode(facts.pop("output")), np.float32).copy())
    return Prepared(process, facts, right.distance(output.reshape(facts.pop("shape"))), facts.pop("nbytes"))


@contextmanager
def built(
    model: str, sparsity: float | None, batch_size: int, threads: int, backend: str, options: Mapping[str, Any]
) -> Iterator[tuple[Callable[[], Any], dict[str, Any]]]:
    """In a worker: the arm's call, and its facts with the rows of its output that are checked."""
    with machine.threads(threads):
        x = network_input(model, batch_size)
        executor, facts = _compiled(backend, options, _weights(model, sparsity), x, threads)
        with torch.inference_mode():
            output = executor(x)[rows_checked(batch_size)].float().contiguous().numpy()
        checked = {"output": base64.b64encode(output.tobytes()).decode(), "shape": output.shape}
        yield partial(executor, x), {**facts, **checked, "nbytes": int(executor.nbytes)}


def _compiled(
    backend: str, options: Mapping[str, Any], model: nn.Module, x: Tensor, threads: int
) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter()
    executor = backends.compile(model, x, backend, threads, **options)
    return executor, {"compile_seconds": time.perf_counter() - start, "version": needs.version(backend)}


def _weights(model: str, sparsity: float | None) -> nn.Module:
    dense = random_network(model)
    return dense if sparsity is None else pruned_copy(dense, sparsity)


def _modules(backend: str, model: str) -> list[str]:
    """Modules that registered a plugin of this process alone, such as a conftest.py."""
    names = [(group, name) for group, name in (("backends", backend), ("models", model))]
    found = [registry.get(group, name)[0] for group, name in names if registry.fingerprint(group, name) is not None]
    return sorted({plugin.function.__module__ for plugin in found})


def random_network(name: str, seed: int = 0) -> nn.Module:
    """An eval-mode network with random weights and batch-norm statistics, as if it had been trained."""
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
    twin = copy.deepcopy(model)
    stems = [path for path, m in twin.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer of few weights keeps its best one is no news here
        prune(twin, sparsity, "l1", scope="layerwise", exclude=stems)
    return twin


def network_input(model: str, batch: int, seed: int = 0) -> Tensor:
    """The batch that a network is timed with."""
    shape, _ = input_of(model)
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(derive_seed(seed, "input")))
