"""How much slower is our training loop than a minimal one written by hand? Prints the ratio; nothing is saved.

    python benchmarks/training_loop.py [MODEL] [STEPS] [ROUNDS]

Both train the same network on the same resident tensors with SGD and momentum, in channels_last, one after the other in
every round; the ratio is the median over rounds, with their extremes. One thread, CPU seconds: others may be busy.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from prunebench import machine, models
from prunebench.cell import Recipe
from prunebench.datasets.base import Dataset, Split
from prunebench.pruner import Pruner
from prunebench.training.loop import fit

BATCH = 128


def data(steps: int) -> Dataset:
    """Random images of CIFAR's shape, `steps` batches of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (steps * BATCH, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (len(images),), generator=generator))
    return Dataset("random", 10, split, split, split, torch.full((3,), 0.5), torch.full((3,), 0.25))


def by_hand(model: nn.Module, toy: Dataset) -> None:
    """The least that trains: no divergence check, no schedule, no hooks."""
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    for index in torch.randperm(len(toy.train)).split(BATCH):
        x = ((toy.train.images[index].float() / 255 - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), toy.train.labels[index]).backward()
        optimizer.step()


def ours(model: nn.Module, toy: Dataset, **hooks: Callable[..., None]) -> None:
    recipe = Recipe(optimizer="sgd", momentum=0.9, weight_decay=1e-4, batch_size=BATCH)
    fit(model, toy, recipe, epochs=1, learning_rate=0.1, seed=0, **hooks)  # type: ignore[arg-type]


def pruned(model: nn.Module, toy: Dataset) -> None:
    ours(model, toy, after_step=Pruner(model, 0.9, schedule="one_shot").enforce)


def cropped(model: nn.Module, toy: Dataset) -> None:
    recipe = Recipe(optimizer="sgd", momentum=0.9, weight_decay=1e-4, batch_size=BATCH, augment="crop_flip")
    fit(model, toy, recipe, epochs=1, learning_rate=0.1, seed=0)


def main(name: str = "resnet20", steps: str = "4", rounds: str = "5") -> None:
    toy = data(int(steps))
    arms = {"by hand": by_hand, "fit": ours, "fit, masks enforced": pruned, "fit, crop_flip": cropped}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    with machine.threads(1):
        for turn in range(int(rounds) + 1):
            for arm, train in arms.items():
                model = models.build(name, toy.input_shape, toy.classes)
                start = time.process_time()
                train(model, toy)
                if turn:  # the first round warms up
                    seconds[arm].append(time.process_time() - start)
    for arm, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["by hand"], strict=True)]
        print(
            f"{name} {arm:20} {1000 * statistics.median(taken) / int(steps):8.1f} ms a step, "
            f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
