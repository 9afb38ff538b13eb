"""Training on resident tensors: one loop for dense training and for fine-tuning, and accuracy by samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.cell import Recipe, derive_seed
from prunebench.costs import count
from prunebench.datasets.base import Dataset, Split
from prunebench.devices import autocast, check_precision, own_random, repeatable
from prunebench.errors import PrunebenchError
from prunebench.machine import cores
from prunebench.training.state import Keeper, TrainingState, UnfitState

EVALUATION_BATCH = 500
# Below this a second core gains under a tenth (measured on LeNet-300-100), and where another process keeps that core
# busy, the wait at every barrier made such steps a hundred times slower.
SHARED_STEP_MACS = 1e8


class Diverged(PrunebenchError, ArithmeticError):
    """The loss or a weight became NaN or infinite; the message says when."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: its number from 1, steps so far, the last step's rate, mean loss, seconds it took."""

    number: int
    step: int
    learning_rate: float
    loss: float
    seconds: float


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
    instead_of_step: Callable[[int, int, torch.optim.Optimizer], bool] | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
    first_epoch: int = 0,
    last_epoch: int | None = None,
    teacher: nn.Module | None = None,
    keeper: Keeper | None = None,
) -> float:
    """Train in place with cross-entropy for whole epochs; returns the last epoch's mean training loss.

    Model and data lie on one device, a GPU or not. before_step(step, steps) and after_step() surround every
    optimizer step; instead_of_step(step, steps, optimizer), asked once gradients are there, may take its place.
    progress(step, steps) and after_epoch(Epoch) are called once an epoch. Only first_epoch <= epoch < last_epoch are
    run, at their place in a training of `epochs`. teacher: the dense parent, where the recipe distills from it.
    keeper: holds the state between epochs; the training goes on from what it holds, to the same bits on a CPU.
    The seed decides data order, augmentation and dropout. Raises Diverged where the loss is not finite, UsageError
    for a precision that the device lacks, UnfitState where the keeper holds another training's state.
    """
    device = next((p.device for p in model.parameters()), data.train.labels.device)
    check_precision(recipe, device)
    layout = memory_layout(model)
    model.to(memory_format=layout)
    optimizer = _optimizer(model, recipe, learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    order = torch.Generator().manual_seed(derive_seed(seed, "order"))
    state = TrainingState(model, optimizer, scaler, order, device)
    per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    steps, mean = epochs * per_epoch, math.nan
    end = epochs if last_epoch is None else last_epoch
    forward: Any = torch.compile(model) if recipe.compiled else model
    if teacher is not None:
        teacher.eval().to(memory_format=layout)
    model.train()
    with own_random(derive_seed(seed, "training"), device), repeatable(recipe.deterministic):
        kept = keeper.read() if keeper else None
        if kept is not None:
            first_epoch, mean = _kept_epoch(kept[1], first_epoch, end)
            state.restore(kept[0])
        for epoch in range(first_epoch, end):
            start, step = time.perf_counter(), epoch * per_epoch
            total = torch.zeros((), device=device)
            for index in torch.randperm(len(data.train), generator=order).split(recipe.batch_size):
                rate = learning_rate * warmup(step, recipe.warmup_epochs * per_epoch)
                rate *= decay(recipe.decay, step / steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                if before_step:
                    before_step(step, steps)
                x, labels = _batch(data, index.to(device), recipe, order, layout)
                with autocast(recipe.precision, device):
                    loss = objective(forward(x), labels, recipe, teacher, x)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                if not (instead_of_step and instead_of_step(step, steps, optimizer)):
                    scaler.step(optimizer)
                scaler.update()
                if after_step:
                    after_step()
                total += loss.detach() * len(index)
                step += 1
            mean = float(total) / len(data.train)
            _check_finite(model, mean, f"epoch {epoch + 1} of {epochs}")
            if progress:
                progress(step, steps)
            if after_epoch:
                after_epoch(Epoch(epoch + 1, step, rate, mean, time.perf_counter() - start))
                model.train()
            if keeper and keeper.due():
                keeper.write(state.capture(), {"epoch": epoch + 1, "loss": mean})
    model.to(memory_format=torch.contiguous_format).eval()
    return mean


def _kept_epoch(values: Mapping[str, Any], first: int, end: int) -> tuple[int, float]:
    """(epochs done, the last one's mean loss) as a kept state has them."""
    epoch, loss = values.get("epoch"), values.get("loss")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not first < epoch <= end:
        raise UnfitState(f"its epoch is {epoch!r}, and this training has those above {first} up to {end}")
    if not isinstance(loss, float) or not math.isfinite(loss):
        raise UnfitState(f"its loss is {loss!r}")
    return epoch, loss


def _batch(
    data: Dataset, index: Tensor, recipe: Recipe, order: torch.Generator, layout: torch.memory_format
) -> tuple[Tensor, Tensor]:
    """Normalised, augmented images and their labels; `order` decides the crops."""
    images = data.train.images[index]
    if recipe.augment == "crop_flip":
        images = crop_flip(images, order)
    return data.normalise(images).contiguous(memory_format=layout), data.train.labels[index]


def _check_finite(model: nn.Module, loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"training diverged in {when}: the loss is {loss}")
    if not finite(model):  # the loss is that before the step: the last one may have blown up unseen
        raise Diverged(f"training diverged in {when}: a weight is NaN or infinite")


def objective(logits: Tensor, labels: Tensor, recipe: Recipe, teacher: nn.Module | None, x: Tensor) -> Tensor:
    """Mean cross-entropy with the recipe's label smoothing, mixed with distillation where there is a teacher.

    Hinton et al. 2015: (1 − w)·CE + w·T²·KL(softmax(teacher/T) ‖ softmax(logits/T)); T² keeps the gradients of both
    parts of one size.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if teacher is None or recipe.distill_weight == 0.0:
        return loss
    with torch.no_grad():
        soft = teacher(x).float() / recipe.distill_temperature
    kl = F.kl_div(
        (logits.float() / recipe.distill_temperature).log_softmax(1),
        soft.log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - recipe.distill_weight) * loss + recipe.distill_weight * recipe.distill_temperature**2 * kl


def finite(model: nn.Module) -> bool:
    """True where no parameter is NaN or infinite."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def _optimizer(model: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )


def memory_layout(model: nn.Module) -> torch.memory_format:
    """Channels innermost for convolutions: oneDNN's own layout, 1.1 to 1.5 times faster for these networks."""
    return torch.channels_last if any(p.ndim == 4 for p in model.parameters()) else torch.contiguous_format


def useful_threads(model: nn.Module, data: Dataset, recipe: Recipe) -> int:
    """How many threads a training step keeps busy: all cores, or one where a step is too small to share.

    A rule rather than a measurement, because the number of threads decides the order of sums and so the weights.
    """
    device = next((p.device for p in model.parameters()), None)
    batch = torch.zeros(1, *data.input_shape, device=device)
    return cores() if count(model, batch).macs_dense * recipe.batch_size >= SHARED_STEP_MACS else 1


def decay(kind: str, t: float) -> float:
    """Learning-rate factor at progress t in [0, 1]: constant, cosine, or step (×0.1 at 50 % and at 75 %)."""
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    if kind == "step":
        return 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01
    return 1.0


def warmup(step: int, steps: float) -> float:
    """Learning-rate factor of a linear warm-up: (step + 1)/steps, then 1 (Goyal et al. 2017)."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def crop_flip(images: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Zero-pad, crop back at a random place and mirror half of them: (n, c, h, w) uint8 -> the same.

    Drawn on the CPU wherever the images lie, so that a GPU sees the same crops.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(device)
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    mirrored = (torch.rand(n, generator=generator) < 0.5).to(device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
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
