"""Engine: a compiled model. Checks the input, runs the graph, reports bytes and layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map

from prunebench.engine.dense import Frozen
from prunebench.engine.native_loader import native
from prunebench.engine.segment import Segment
from prunebench.engine.summary import Summary, profile_rows, row, segment_rows, torch_row
from prunebench.errors import UsageError

_MAX_READY = 16  # input shapes with a short cut
_MOST_KEPT = 4096  # numbers of an output that is kept as a pattern for the next


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
        self._segments = [m for m in module.modules() if isinstance(m, Segment)]
        self._direct = _only_segment(module)
        self._one_shape = bool(getattr(module, "one_shape", False))  # what was captured took its sizes for constants
        # input shape -> (output like this, or its shape, program, chunks, threads), where one program does it all
        self._ready: dict[Any, tuple[Any, Any, int, int]] = {}
        self._native_run = native().run

    def __call__(self, x: torch.Tensor) -> Any:
        """The model's output for x. UsageError: an input the model wasn't compiled for."""
        if type(x) is torch.Tensor and x.dtype is torch.float32:
            try:
                ready = self._ready.get(x.shape)
                if ready is not None and x.is_cpu and x.is_contiguous() and not x.is_neg():
                    like = ready[0]  # half a microsecond faster than a shape, a twentieth of LeNet-300-100
                    y = torch.empty_like(like) if type(like) is torch.Tensor else x.new_empty(like)
                    at = x.data_ptr()
                    if at and not at & 3:
                        self._native_run(ready[1], ready[2], ready[3], None, at, y.data_ptr())
                        return y
            except RuntimeError:  # no memory to point at: nested, inside vmap; it is refused below
                pass
        self._check(x)
        self._prepare(x)
        if torch.is_autocast_enabled("cpu"):  # the engine computes in float32 whatever the caller's own layers do
            with torch.autocast("cpu", enabled=False):
                return self._run(x)
        return self._run(x)

    def _run(self, x: torch.Tensor) -> Any:
        x = x.detach() if x.requires_grad else x
        x = x.resolve_neg() if x.is_neg() else x
        with torch.no_grad():
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

    def _prepare(self, x: torch.Tensor) -> None:
        """Remembers the program for inputs like x, where there is just one; the next call needs nothing else."""
        segment = self._direct
        rank = 0 if segment is None else 2 if segment.inputs[0].flat else 4
        if segment is None or x.dim() != rank or not x.shape[0] or len(self._ready) >= _MAX_READY:
            return
        try:
            parts = segment.parts(x.shape[0], segment.shapes_of((x,)))
        except ValueError:  # the slow way says what is wrong
            return
        if len(parts) == 1 and len(segment.outputs) == 1:
            plan, count, _ = parts[0]
            shape = plan.shapes[0][:1] if segment.outputs[0].flat else plan.shapes[0]
            whole: Any = (x.shape[0], *shape)
            whole = torch.empty(whole) if math.prod(whole) <= _MOST_KEPT else whole
            self._ready[x.shape] = (whole, plan.program, count, plan.threads)

    def __reduce__(self) -> Any:
        """UsageError: an engine holds native programs, which can be neither copied nor pickled."""
        raise UsageError("an engine can be neither copied nor pickled; keep the model, and compile it again")

    def _check(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor):
            raise UsageError(f"the input must be a torch tensor, not {type(x).__name__}")
        if x.dtype != torch.float32 or x.device.type != "cpu" or x.layout != torch.strided or x.is_nested:
            raise UsageError(f"the input must be a dense float32 CPU tensor, not {x.dtype} on {x.device}")
        if not _has_memory(x):
            raise UsageError("the input must be a tensor with memory of its own, not one of a torch.func transform")
        want = self._example
        if x.dim() != len(want):
            raise UsageError(f"the input has {x.dim()} dimensions; this engine was compiled for {len(want)}: {want}")
        if len(want) in (2, 4) and x.shape[1] != want[1]:
            what = "features" if len(want) == 2 else "channels"
            raise UsageError(f"the input has {x.shape[1]} {what}; this engine was compiled for {want[1]}")
        if self._one_shape and tuple(x.shape[1:]) != want[1:]:
            raise UsageError(
                f"the input is {tuple(x.shape)}; this engine was captured for {want[1:]} and any batch size; compile "
                "again for another"
            )

    @property
    def choices(self) -> list[dict[str, Any]]:
        """What tuning chose, fit for JSON and for `tune=` of a later compilation of the same model."""
        return [
            {"segment": i, "images_at_a_time": chunk, **choice.as_dict()}
            for i, s in enumerate(self._segments)
            for chunk, choice in s.choices.items()
        ]

    @property
    def nbytes(self) -> int:
        """Resident bytes of the weights: compressed arrays, and what stays dense (parameters and buffers)."""
        dense = {t.data_ptr(): t.nbytes for t in [*self.module.parameters(), *self.module.buffers()]}
        frozen = sum(m.nbytes for m in self.module.modules() if isinstance(m, Frozen))
        return sum(dense.values()) + sum(s.nbytes for s in self._segments) + frozen

    def summary(self) -> Summary:
        """Per layer: name, kind, weight shape, sparsity, kernel (csr or torch), layout, tile, us, gflops, bytes.

        us and gflops are None; `profile` measures them.
        """
        rows = Summary()
        inside = {id(m) for s in self._segments for m in s.modules()}
        for name, m in self.module.named_modules():
            if isinstance(m, Segment):
                rows.extend(segment_rows(m, name.removesuffix(".segment")))
            elif isinstance(m, Frozen):
                rows.extend(m.rows)
            elif isinstance(m, (nn.Conv2d, nn.Linear)) and id(m) not in inside:
                rows.append(torch_row(name, m))
        return rows

    def profile(self, x: torch.Tensor, rounds: int = 10) -> Summary:
        """The summary for this input with microseconds and useful GFLOP/s per layer, the best of some rounds.

        What isn't a layer (halos, moves between layouts, pooling, elementwise) has a row of its own each. The layers
        that torch runs aren't timed. UsageError: an input the model wasn't compiled for.
        """
        seen: list[tuple[Segment, tuple[torch.Tensor, ...]]] = []
        hooks = [s.register_forward_pre_hook(lambda m, xs: seen.append((m, xs))) for s in self._segments]
        self._check(x)
        try:
            self._run(x)
        finally:
            for hook in hooks:
                hook.remove()
        table = self.summary()
        names = {op: i for i, op in enumerate(op for s in self._segments for op in s.layers)}
        csr = [r for r in table if r["kernel"] == "csr"]
        for segment, xs in seen:
            layers, rest = profile_rows(segment.profile(xs, rounds))
            for op, (us, gflops) in layers.items():
                csr[names[op]].update(us=us, gflops=gflops)
            table.extend(
                row(f"({what})", "other", None, None, "csr", None, None, us, None, 0) for what, us in rest.items()
            )
        return table


def _has_memory(x: torch.Tensor) -> bool:
    """False for fake and functional tensors, those inside vmap or jvp, and ones whose storage was taken away."""
    try:
        return not x.numel() or (not hasattr(x, "fake_mode") and x.data_ptr() != 0)
    except RuntimeError:
        return False


def _only_segment(module: nn.Module) -> Segment | None:
    """The segment that is all there is to a traced model, or None."""
    if not isinstance(module, fx.GraphModule):
        return None
    nodes = list(module.graph.nodes)
    if [n.op for n in nodes] != ["placeholder", "call_module", "output"] or nodes[2].args[0] is not nodes[1]:
        return None
    segment = module.get_submodule(str(nodes[1].target))
    return segment if isinstance(segment, Segment) and nodes[1].args == (nodes[0],) else None
