"""Need `sample_gradients`: per-sample gradients of all layers from one pass over the data, held in few bytes.

A sample's gradient of a layer is the product of the output's gradient and the (unfolded) input: where these two are
smaller than their product, as in the late and wide layers that hold most weights, they are kept in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.criteria.gathering import per_sample
from prunebench.criteria.gathering.inputs import is_convolution, unflipped, windows
from prunebench.criteria.gathering.run import Run, precise
from prunebench.rows import to_rows

# What is kept of all samples and layers, in bytes; samples beyond it are left out, one is the least.
KEPT_BYTES = 2 * 2**30
# Unfolded inputs of one layer, in bytes, that stay while its gradients are read; larger ones are made again each time.
UNFOLDED_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Use:
    """One use of a weight on one batch: the module, its output's gradient and its input, samples first."""

    module: Any
    gradient: Tensor
    input: Tensor

    def outputs(self) -> Tensor:
        """The output's gradient as (n, groups, outputs/groups, positions)."""
        g, n = self.gradient, len(self.gradient)
        if not is_convolution(self.module):
            return g.reshape(n, 1, -1, g.shape[-1]).mT
        return g.reshape(n, self.module.groups, g.shape[1] // self.module.groups, -1)

    def inputs(self) -> Tensor:
        """The input as (n, groups, inputs of one output, positions), in the order of a weight's row."""
        x, n = self.input, len(self.input)
        if not is_convolution(self.module):
            return x.reshape(n, 1, -1, x.shape[-1]).mT
        dims = len(self.module.kernel_size)
        seen = unflipped(self.module, windows(self.module, x, self.gradient))
        # Positions last, as they lie in memory: a 1 x 1 convolution's input needs no copy.
        seen = seen.permute(0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
        return seen.reshape(n, self.module.groups, -1, self.gradient[0, 0].numel())


@dataclass
class SampleGradients:
    """One layer's gradients, `count` samples of `size` weights each, the weights in the order of `to_rows`.

    batches: in the data's order; of each either the gradients themselves, (n, size), or the uses that they sum over.
    """

    size: int
    batches: list[Tensor | list[Use]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(len(b) if isinstance(b, Tensor) else len(b[0].input) for b in self.batches)

    def blocks(self, width: int) -> Iterator[tuple[int, Tensor]]:
        """(start, gradients (count, at most width) of the weights from start on), from the first weight to the last."""
        uses = [use for batch in self.batches if not isinstance(batch, Tensor) for use in batch]
        unfolded: dict[int, Tensor] = {}
        room = UNFOLDED_BYTES if width < self.size else 0
        for start in range(0, self.size, width):
            stop = min(start + width, self.size)
            found: dict[int, Tensor] = {}
            for use in uses:
                seen = unfolded.get(id(use))
                if seen is None:
                    seen = use.inputs()
                    room -= seen.numel() * seen.element_size()
                    if room >= 0:
                        unfolded[id(use)] = seen
                found[id(use)] = _product(use.outputs(), seen, start, stop)
            parts = []
            for batch in self.batches:
                if isinstance(batch, Tensor):
                    parts.append(batch[:, start:stop])
                else:
                    parts.append(torch.stack([found[id(use)] for use in batch]).sum(0))
            yield start, torch.cat(parts)


def _product(out: Tensor, seen: Tensor, start: int, stop: int) -> Tensor:
    """(n, stop - start) of the products out·seenᵀ, row after row, group after group."""
    groups, per_group, inputs = out.shape[1], out.shape[2], seen.shape[2]
    first, last = start // inputs, -(-stop // inputs)
    if groups == 1:
        found = out[:, 0, first:last] @ seen[:, 0].mT
    else:
        low, high = first // per_group, -(-last // per_group)
        found = out[:, low:high] @ seen[:, low:high].mT
        first = low * per_group
    return found.flatten(1)[:, start - first * inputs : stop - first * inputs]


def gather(run: Run, names: Sequence[str]) -> dict[str, SampleGradients]:
    """{name: its gradients}, at least float32, of as many samples from the data's start as KEPT_BYTES hold.

    One forward pass and one backward pass that stops at the layers' outputs. Where a module's input doesn't have the
    samples along its first dimension, or no module runs the weight, its gradients are differentiated one by one.
    """
    weights = run.weights
    found = {name: SampleGradients(weights[name].numel()) for name in names}
    recorder = _Recorder(run, found)
    counted, room = 0, None
    for x, y in run.batches():
        if room is None:
            room = recorder.plan(x[:1])
        recorder.record(x[:room], y[:room])
        counted += len(x[:room])
        room -= len(x[:room])
        if not room:
            break
    _one_by_one(run, {name: found[name] for name in names if name not in recorder.plain}, counted)
    return found


class _Recorder:
    """Runs batches with hooks on every module that uses a weight.

    plain: {name: True where uses are kept, False where their product is}, for the layers that hooks can serve.
    """

    def __init__(self, run: Run, found: dict[str, SampleGradients]) -> None:
        self.run, self.found = run, found
        self.plain: dict[str, bool] = {}
        self.names = {id(run.modules[name].weight): name for name in found}

    def _watch(self, see: Callable[..., Tensor | None], x: Tensor) -> Tensor:
        handles = []

        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor | None:
            return see(self.names[id(module.weight)], module, (args[0] if args else kwargs["input"]).detach(), out)

        try:
            for module in self.run.model.modules():
                if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and id(module.weight) in self.names:
                    handles.append(module.register_forward_hook(hook, with_kwargs=True))
            return self.run.model(x)
        finally:
            for handle in handles:
                handle.remove()

    def plan(self, x: Tensor) -> int:
        """From one sample: which layers are kept as uses, and how many samples can be kept at all."""
        sizes: dict[str, int] = {}
        strange = set()

        def see(name: str, module: Any, x: Tensor, out: Tensor) -> None:
            sizes[name] = sizes.get(name, 0) + x.numel() + out.numel()
            if len(x) != 1 or len(out) != 1:
                strange.add(name)

        with torch.no_grad():
            self._watch(see, x)
        total = 0
        for name, kept in self.found.items():
            if name in sizes and name not in strange:
                self.plain[name] = sizes[name] < kept.size
            total += min(sizes[name], kept.size) if name in self.plain else kept.size
        itemsize = precise(next(iter(self.run.modules.values())).weight.dtype).itemsize
        return max(1, KEPT_BYTES // (total * itemsize))

    def record(self, x: Tensor, y: Tensor) -> None:
        """Add one batch's gradients to every layer in `plain`."""
        uses: dict[str, list[Use]] = {name: [] for name in self.plain}
        products: dict[str, Tensor] = {}
        leaves: list[Tensor] = []
        samples = len(x)

        def see(name: str, module: Any, x: Tensor, out: Tensor) -> Tensor | None:
            if name not in self.plain:
                return None
            # Copied: batches may come in one buffer, and an in-place operation may follow.
            x = x.to(precise(x.dtype), copy=True)

            def receive(gradient: Tensor) -> None:
                # The loss is a mean: a sample's own gradient is as many times larger.
                use = Use(module, (gradient.detach() * samples).to(x.dtype), x)
                if self.plain[name]:
                    uses[name].append(use)
                    return
                found = _product(use.outputs(), use.inputs(), 0, self.found[name].size)
                products[name] = products[name] + found if name in products else found

            if out.requires_grad:
                out.register_hook(receive)
                return None
            # The first layers: nothing before them wants a gradient. A copy, since a leaf can't be changed in place.
            leaves.append(out.detach().requires_grad_(True))
            out = leaves[-1].clone()
            out.register_hook(receive)
            return out

        flags = [(p, p.requires_grad) for p in self.run.model.parameters()]
        try:
            for p, _ in flags:  # only outputs' gradients are wanted; the weights' would cost a third of the time
                p.requires_grad_(False)
            value = self.run.loss(self._watch(see, x), y)
            if leaves and value.requires_grad:
                torch.autograd.grad(value, leaves, allow_unused=True)
        finally:
            for p, flag in flags:
                p.requires_grad_(flag)
        for name, plain in self.plain.items():
            kept = self.found[name]
            if plain and uses[name]:
                kept.batches.append(uses[name])
            else:  # zeros where the loss doesn't depend on it
                kept.batches.append(products.get(name, x.new_zeros(samples, kept.size, dtype=torch.float32)))


def _one_by_one(run: Run, found: dict[str, SampleGradients], samples: int) -> None:
    if not found:
        return
    for block in per_sample.blocks(run, list(found)):
        for name, gradients in block.items():
            part = gradients.detach()[: samples - found[name].count].to(precise(gradients.dtype))
            found[name].batches.append(torch.stack([to_rows(run.modules[name], g).flatten() for g in part]))
        if found[name].count == samples:
            return
