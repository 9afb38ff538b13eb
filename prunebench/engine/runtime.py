"""Engine: a compiled model. Checks the input, runs the graph, reports bytes and layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunebench.engine.graph import sparsity_of
from prunebench.engine.layers import SparseConv2d, SparseLayer
from prunebench.errors import UsageError


class Summary(list):
    """One dict per conv and linear layer; str() is a readable table."""

    columns = ("layer", "kind", "shape", "sparsity", "kernel", "layout", "bytes")

    def __str__(self) -> str:
        rows = [[self._cell(row[c]) for c in self.columns] for row in self]
        widths = [max(len(r[i]) for r in [list(self.columns), *rows]) for i in range(len(self.columns))]
        lines = [list(self.columns), ["-" * w for w in widths], *rows]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    @staticmethod
    def _cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Engine:
    """A compiled model: engine(x) computes what model(x) did, for inference only.

    x: float32 CPU tensor, any batch size, contiguous or not. Zero weights aren't multiplied: a NaN or infinity in x
    reaches only the outputs that a nonzero weight connects it to. Several engines, and several threads on one engine,
    may run at once.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor, threads: int, form: str):
        self.module = module
        self.threads = threads
        self.form = form
        self._example = tuple(example.shape)
        self._layers = [(n, m) for n, m in module.named_modules() if isinstance(m, (SparseLayer, nn.Conv2d, nn.Linear))]

    def __call__(self, x: torch.Tensor) -> Any:
        """The model's output for x. UsageError: an input the model wasn't compiled for."""
        self._check(x)
        if torch.is_autocast_enabled("cpu"):  # the engine computes in float32 whatever the caller's own layers do
            with torch.autocast("cpu", enabled=False):
                return self._run(x)
        return self._run(x)

    def _run(self, x: torch.Tensor) -> Any:
        x = x.detach() if x.requires_grad else x
        x = x.resolve_neg() if x.is_neg() else x
        with torch.inference_mode():
            try:
                y = self.module(x)
            except (RuntimeError, ValueError) as error:
                if isinstance(error, torch.OutOfMemoryError if hasattr(torch, "OutOfMemoryError") else ()):
                    raise
                batched = 0 if len(self._example) == 3 else 1  # three dimensions: one image, or a batch of sequences
                if tuple(x.shape[batched:]) == self._example[batched:]:
                    raise
                line = " ".join(str(error).split())
                raise UsageError(
                    f"an input of shape {tuple(x.shape)} doesn't run through this model, compiled for "
                    f"{self._example}: {line}"
                ) from error
            if isinstance(y, torch.Tensor):
                return y.contiguous()
            return tree_map(lambda t: t.contiguous() if isinstance(t, torch.Tensor) else t, y)

    def _check(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor):
            raise UsageError(f"the input must be a torch tensor, not {type(x).__name__}")
        if x.dtype != torch.float32 or x.device.type != "cpu" or x.layout != torch.strided:
            raise UsageError(f"the input must be a dense float32 CPU tensor, not {x.dtype} on {x.device}")
        want = self._example
        if x.dim() != len(want):
            raise UsageError(f"the input has {x.dim()} dimensions; this engine was compiled for {len(want)}: {want}")
        if len(want) in (2, 4) and x.shape[1] != want[1]:
            what = "features" if len(want) == 2 else "channels"
            raise UsageError(f"the input has {x.shape[1]} {what}; this engine was compiled for {want[1]}")

    @property
    def nbytes(self) -> int:
        """Resident bytes of the weights: compressed arrays, and what stays dense (parameters and buffers)."""
        dense = {t.data_ptr(): t.nbytes for t in [*self.module.parameters(), *self.module.buffers()]}
        sparse = {id(m): m.nbytes for m in self.module.modules() if isinstance(m, SparseLayer)}
        return sum(dense.values()) + sum(sparse.values())

    def summary(self) -> Summary:
        """Per conv and linear layer: name, kind, weight shape, sparsity, kernel (csr or torch), layout, bytes."""
        rows = Summary()
        for name, m in self._layers:
            if isinstance(m, SparseLayer):
                kind = "conv" if isinstance(m, SparseConv2d) else "linear"
                shape, sparsity, kernel, layout, size = m.shape, m.sparsity, "csr", m.layout, m.nbytes
            else:
                kind = "conv" if isinstance(m, nn.Conv2d) else "linear"
                shape, sparsity, kernel, layout = tuple(m.weight.shape), sparsity_of(m.weight), "torch", "dense"
                size = m.weight.nbytes + (0 if m.bias is None else m.bias.nbytes)
            rows.append(dict(zip(Summary.columns, (name, kind, shape, sparsity, kernel, layout, size), strict=True)))
        return rows
