"""The layer table of an engine: what every layer became, what it costs in bytes and, once profiled, in time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prunebench.engine.ir import Op
from prunebench.engine.segment import Plan, Segment

COLUMNS = ("layer", "kind", "shape", "sparsity", "kernel", "layout", "tile", "us", "gflops", "bytes")


class Summary(list):
    """One dict per layer; str() is a readable table. us and gflops are None until the engine was profiled."""

    columns = COLUMNS

    def __str__(self) -> str:
        rows = [[self._cell(row[c]) for c in self.columns] for row in self]
        widths = [max(len(r[i]) for r in [list(self.columns), *rows]) for i in range(len(self.columns))]
        lines = [list(self.columns), ["-" * w for w in widths], *rows]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    @staticmethod
    def _cell(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.3f}" if value < 100 else f"{value:.1f}"
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def row(*values: Any) -> dict[str, Any]:
    """One line of the table."""
    return dict(zip(COLUMNS, values, strict=True))


def segment_rows(segment: Segment, prefix: str) -> list[dict[str, Any]]:
    """The conv and linear layers of a segment, as the newest plan runs them."""
    plan = next(reversed(segment.plans.values()), None)
    made = {r["op"]: r for r in plan.rows if r["op"] is not None} if plan is not None else {}
    seen: set[int] = set()
    rows = []
    for op in segment.layers:
        w, how = op.weights, made.get(op, {})
        size = 0 if id(w) in seen else w.nbytes
        seen.add(id(w))
        name = op.name or prefix
        layout, tile = how.get("layout"), how.get("tile")
        rows.append(row(name, op.kind, w.shape, w.sparsity, "csr", layout, tile, None, None, size))
    return rows


def torch_row(name: str, module: nn.Module) -> dict[str, Any]:
    """A conv or linear layer that torch runs."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    bias = module.bias
    size = weight.nbytes + (bias.nbytes if isinstance(bias, torch.Tensor) else 0)
    sparsity = 1.0 - int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 0.0
    kind = "linear" if isinstance(module, nn.Linear) else "conv"
    return row(name, kind, tuple(weight.shape), sparsity, "torch", "dense", None, None, None, size)


def flops(op: Op, plan: Plan) -> float:
    """Useful floating-point operations of a layer for one image: two per nonzero and output pixel."""
    _, h, w = plan.sizes[op]
    return 2.0 * op.weights.nnz * h * w


def profile_rows(parts: list[tuple[Plan, Any, int]]) -> tuple[dict[Op, tuple[float, float]], dict[str, float]]:
    """(microseconds and GFLOP/s of every layer, microseconds of everything else by what it is)."""
    layers: dict[Op, list[float]] = {}
    rest: dict[str, float] = {}
    for plan, ns, images in parts:
        for how, t in zip(plan.rows, ns, strict=True):
            if how["op"] is None:
                rest[how["what"]] = rest.get(how["what"], 0.0) + t / 1e3
            else:
                entry = layers.setdefault(how["op"], [0.0, 0.0])
                entry[0] += t / 1e3
                entry[1] += flops(how["op"], plan) * images
    return {op: (us, work / us / 1e3 if us else 0.0) for op, (us, work) in layers.items()}, rest
