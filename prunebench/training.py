"""Training on resident tensors: one loop for dense training and for fine-tuning, and accuracy by samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.cell import Recipe, derive_seed
from prunebench.costs import count
from prunebench.datasets.base import Dataset, Split
from prunebench.errors import PrunebenchError
from prunebench.machine import cores

EVALUATION_BATCH = 500
# Below this a second core gains under a tenth (measured on LeNet-300-100), and where another process keeps that core
# busy, the wait at every barrier made such steps a hundred times slower.
SHARED_STEP_MACS = 1e8


class Diverged(PrunebenchError, ArithmeticError):
    """The loss or a weight became NaN or infinite; the message says when."""


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    before_step: Callable[[int, int], None] | None = None,
    after_step: Callable[[], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Train in place with cross-entropy for whole epochs; returns the last epoch's mean training loss.

    before_step(step, steps) and after_step() surround every optimizer step; progress(step, steps) is called once an
    epoch. The seed decides data order, augmentation and dropout. Raises Diverged where the loss is not finite.
    """
    layout = memory_layout(model)
    model.to(memory_format=layout)
    optimizer = _optimizer(model, recipe, learning_rate)
    order = torch.Generator().manual_seed(derive_seed(seed, "order"))
    per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    steps, step, mean = epochs * per_epoch, 0, math.nan
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "training"))
        for epoch in range(epochs):
            total = torch.zeros(())
            for index in torch.randperm(len(data.train), generator=order).split(recipe.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * decay(recipe.decay, step / steps)
                if before_step:
                    before_step(step, steps)
                images = data.train.images[index]
                if recipe.augment == "crop_flip":
                    images = crop_flip(images, order)
                x = data.normalise(images).contiguous(memory_format=layout)
                loss = F.cross_entropy(model(x), data.train.labels[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if after_step:
                    after_step()
                total += loss.detach() * len(index)
                step += 1
            mean = float(total) / len(data.train)
            if not math.isfinite(mean):
                raise Diverged(f"training diverged in epoch {epoch + 1} of {epochs}: the loss is {mean}")
            if not finite(model):  # the loss is that before the step: the last one may have blown up unseen
                raise Diverged(f"training diverged in epoch {epoch + 1} of {epochs}: a weight is NaN or infinite")
            if progress:
                progress(step, steps)
    model.to(memory_format=torch.contiguous_format).eval()
    return mean


def finite(model: nn.Module) -> bool:
    """True where no parameter is NaN or infinite."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def _optimizer(model: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )


def memory_layout(model: nn.Module) -> torch.memory_format:
    """Channels innermost for convolutions: oneDNN's own layout, 1.1 to 1.5 times faster for these networks."""
    return torch.channels_last if any(p.ndim == 4 for p in model.parameters()) else torch.contiguous_format


def useful_threads(model: nn.Module, data: Dataset, recipe: Recipe) -> int:
    """How many threads a training step keeps busy: all cores, or one where a step is too small to share.

    A rule rather than a measurement, because the number of threads decides the order of sums and so the weights.
    """
    batch = torch.zeros(1, *data.input_shape)
    return cores() if count(model, batch).macs_dense * recipe.batch_size >= SHARED_STEP_MACS else 1


def decay(kind: str, t: float) -> float:
    """Learning-rate factor at progress t in [0, 1]: constant, cosine, or step (×0.1 at 50 % and at 75 %)."""
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    if kind == "step":
        return 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01
    return 1.0


def crop_flip(images: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Zero-pad, crop back at a random place and mirror half of them: (n, c, h, w) uint8 -> the same."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    mirrored = torch.rand(n, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def accuracy(
    predict: Callable[[Tensor], Tensor], data: Dataset, split: Split, batch_size: int = EVALUATION_BATCH
) -> float:
    """Fraction of a split classified right, weighed by samples: a short last batch counts for what it is."""
    right = 0
    with torch.inference_mode():
        for images, labels in data.batches(split, batch_size):
            right += int((predict(images).argmax(1) == labels).sum())
    return right / len(split)
