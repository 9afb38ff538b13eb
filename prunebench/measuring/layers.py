"""One layer measured: the engine against torch's dense ways, and against a roof of the same run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench import backends, machine, roofs
from prunebench.answers import answer, measured
from prunebench.cell import derive_seed
from prunebench.measuring.grid import BASELINES, Measured
from prunebench.reference import Reference
from prunebench.timing import compare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.questions import LayerCase
    from prunebench.shapes import LayerShape

HISTORY_SECONDS = 0.05  # there are hundreds of cases


class LayerBench:
    """Measures layers one after another; the roofs and each shape's faster dense way are measured once a run."""

    def __init__(self, timing_seconds: float = 0.3) -> None:
        self.timing_seconds = timing_seconds
        self._roofs: dict[int, dict[str, float | None]] = {}
        self._dense: dict[tuple[LayerShape, int, int], str] = {}

    def measure(self, case: LayerCase) -> Measured:
        """Everything about a case; raises CheckFailed where the output is wrong, before any timing."""
        from prunebench.costs import count

        if case.threads not in self._roofs:
            self._roofs[case.threads] = roofs.measure(case.threads)
        with machine.threads(case.threads):
            model, x = layer_model(case.layer, case.sparsity), layer_input(case.layer, case.batch_size)
            engine = backends.compile(model, x, case.backend, case.threads)
            error = Reference(model, x).check(engine, case.id)
            baseline, call = self.baseline(case, model, x)
            found = compare({baseline: call, "engine": partial(engine, x)}, baseline, seconds=self.timing_seconds)
            costs = count(model, x[:1])
        result = found["engine"]
        facts = answer(
            "layers",
            case,
            layer=case.layer.as_dict(),
            networks=list(case.networks),
            relative_error=error,
            **measured(costs, int(engine.nbytes), result, baseline),
            **_rates(costs, case.batch_size, result.seconds, self._roofs[case.threads]),
            **_chosen(engine.summary()),
        )
        return Measured(facts, partial(engine, x), HISTORY_SECONDS)

    def failed(self, case: LayerCase, reason: str, status: str = "failed") -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        return answer("layers", case, status, reason=reason, layer=case.layer.as_dict(), networks=list(case.networks))

    def baseline(self, case: LayerCase, model: nn.Module, x: Tensor) -> tuple[str, Callable[[], Any]]:
        """(the name of the faster dense way, what runs it once)."""
        key = (case.layer, case.batch_size, case.threads)
        ways = BASELINES if case.layer.kind == "conv" else {"dense": {}}
        if key in self._dense:
            ways = {self._dense[key]: BASELINES[self._dense[key]]}
        calls: dict[str, Callable[[], Any]] = {
            name: partial(backends.compile(model, x, "dense", case.threads, **options), x)
            for name, options in ways.items()
        }
        if len(calls) > 1:
            trial = compare(calls, "dense", seconds=self.timing_seconds / 2)["dense_channels_last"]
            self._dense[key] = "dense_channels_last" if trial.speedup > 1 else "dense"
        name = self._dense.setdefault(key, "dense")
        return name, calls[name]


def layer_model(shape: LayerShape, sparsity: float, seed: int = 0) -> nn.Module:
    """An eval-mode module of one layer with random weights, pruned to the sparsity by magnitude."""
    import torch
    from torch import nn

    from prunebench.pruner import prune

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", shape.id))
        s = shape
        layer: nn.Module = (
            nn.Linear(s.inputs, s.outputs)
            if s.kind == "linear"
            else nn.Conv2d(s.inputs, s.outputs, s.kernel, s.stride, s.padding, groups=s.groups)
        )
    model = nn.Sequential(layer).eval().requires_grad_(False)
    prune(model, sparsity, "l1", scope="layerwise")
    return model


def layer_input(shape: LayerShape, batch: int, seed: int = 0) -> Tensor:
    """A float32 batch of normal random numbers, (batch, …)."""
    import torch

    generator = torch.Generator().manual_seed(derive_seed(seed, "input"))
    return torch.randn(batch, *shape.input_shape, generator=generator)


def _rates(costs: Any, batch: int, seconds: float, measured: dict[str, float | None]) -> dict[str, Any]:
    useful = 2 * costs.macs * batch / seconds / 1e9
    # The roof that binds a sparse product is loads from L1; where the engine can't tell it, torch's dense product.
    roof = "l1" if measured["l1"] else "dense"
    limit = measured[roof]
    return {
        "useful_gflops": useful,
        "dense_equivalent_gflops": 2 * costs.macs_dense * batch / seconds / 1e9,
        "roof": roof,
        "roof_percent": 100 * useful / limit if limit else None,
        "roofs": dict(measured),
    }


def _chosen(rows: Any) -> dict[str, Any]:
    row = rows[0] if rows else {}
    return {name: None if row.get(name) is None else str(row[name]) for name in ("kernel", "layout", "tile")}
