"""`prunebench estimate`: what a grid costs before it is trained: worker-hours, time on a fleet, bytes, money."""

from __future__ import annotations

import argparse
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from prunebench import profiles
from prunebench.commands import cells
from prunebench.commands.options import command, number
from prunebench.commands.output import emit
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.cell import Cell
    from prunebench.executors.base import Task
    from prunebench.scale import Work

_EXAMPLES = [
    "prunebench estimate --profile paper --workers 8",
    "prunebench estimate --models resnet50 --datasets imagefolder --images 1281167x3x224x224:1000 --step-seconds 0.4",
]
_IMAGES = re.compile(r"(\d+)x(\d+)x(\d+)x(\d+):(\d+)")


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "what a grid would cost: worker-hours, time, bytes; trains nothing"
    estimate = command(commands, "estimate", help, run, _EXAMPLES)
    cells.add_lists(estimate)
    cells.add_training(estimate)
    estimate.add_argument("--workers", default="1", metavar="N", help="cells trained at once; default 1")
    estimate.add_argument(
        "--step-seconds", metavar="S", help="of one training step on a worker; default: timed on this machine"
    )
    estimate.add_argument(
        "--images",
        metavar="NxCxHxW:K",
        help="images, channels, height, width and classes of a dataset that isn't here: 1281167x3x64x64:1000",
    )
    estimate.add_argument(
        "--interruptions", default="0", metavar="N", help="of a worker per hour: spot nodes, time limits; default 0"
    )
    estimate.add_argument("--price", metavar="P", help="of a worker per hour")


class _Data:
    """What of the data decides the costs: images, how many are trained on, shape, classes, and a hash for the keys."""

    def __init__(self, images: int, train: int, shape: tuple[int, int, int], classes: int, content: str | None) -> None:
        self.images, self.train = images, train
        self.shape, self.classes, self.content = shape, classes, content

    @property
    def nbytes(self) -> int:
        return self.images * math.prod(self.shape)


def run(options: argparse.Namespace) -> int:
    """Print the estimate; returns the exit code."""
    from prunebench.executors.driving import tasks_of
    from prunebench.progress import Progress, step_seconds
    from prunebench.scale import Fleet, estimate

    plan = cells.plan_of_lists(options)
    workers = profiles.whole_number("--workers", options.workers, 1)
    seconds = number("--step-seconds", options.step_seconds)
    interruptions, price = number("--interruptions", options.interruptions) or 0.0, number("--price", options.price)
    if options.images and seconds is None:
        raise UsageError("--images without --step-seconds: data that isn't here can't be timed; give --step-seconds S")
    lab = cells.lab(options, Progress(lambda _: None, 0.0))
    assumed = _assumed(options.images)
    data: dict[str, _Data] = {}
    for name in dict.fromkeys(cell.dataset for cell in plan.cells):
        data[name] = assumed or _described(lab, name)
    tasks = tasks_of(plan.cells, lambda cell: data[cell.dataset].content)
    missing = [t for t in tasks.values() if assumed or t.key not in lab.store]
    kinds = {(t.cell.dataset, t.cell.model, t.cell.recipe): t.cell for t in missing}
    steps = {kind: step_seconds(cell, lab) if seconds is None else seconds for kind, cell in kinds.items()}
    epoch = {kind: steps[kind] * _steps_per_epoch(cell, data[cell.dataset]) for kind, cell in kinds.items()}
    fleet = Fleet(
        workers,
        task_seconds=10.0 if workers > 1 else 0.0,
        interruptions_per_hour=interruptions,
        restart_seconds=120.0,
        keep_seconds=max(lab.keep_seconds, *epoch.values(), 0.0),
    )
    works = _works(missing, data, epoch)
    found = estimate(works, fleet)
    dense = sum(task.cell.is_control for task in missing)
    training = max((_training_bytes(cell, data[cell.dataset]) for cell in kinds.values()), default=0.0)
    resident = max((data[c.dataset].nbytes for c in kinds.values()), default=0)
    if options.json:
        emit(options, to_train=len(missing), dense=dense, stored=len(tasks) - len(missing), workers=workers,
             worker_seconds=found.worker_seconds, seconds=found.seconds, bound=found.bound,
             stored_bytes=found.stored_bytes, training_bytes=workers * training, image_bytes=resident,
             price=None if price is None else price * found.worker_seconds / 3600)  # fmt: skip
        return 0
    print(f"to train   {len(missing):,} checkpoints: {dense:,} dense, {len(missing) - dense:,} made from them")
    print(f"stored     {len(tasks) - len(missing):,} of them already")
    print(f"work       {found.worker_seconds / 3600:,.1f} worker-hours")
    print(f"time       {_hours(found.seconds)} on {workers:,} workers, ± {100 * found.bound:.1f} %")
    print(f"storage    {_bytes(found.stored_bytes)}, and up to {_bytes(workers * training)} while they train")
    print(f"memory     {_bytes(resident)} of images per worker")
    if price is not None:
        print(f"price      {price * found.worker_seconds / 3600:,.2f}")
    return 0


def _works(tasks: list[Task], data: dict[str, _Data], epoch: dict[Any, float]) -> list[Work]:
    from prunebench import pipeline
    from prunebench.scale import Work

    place = {task.key: i for i, task in enumerate(tasks)}
    sizes: dict[Any, float] = {}
    works = []
    for task in tasks:
        cell = task.cell
        epochs = cell.recipe.rewind_epoch if task.early else pipeline.epochs_of(cell)
        sparsity = 0.0 if task.early else cell.sparsity
        size = (cell.dataset, cell.model, sparsity)
        if size not in sizes:
            sizes[size] = _stored_bytes(cell, data[cell.dataset], sparsity)
        seconds = epochs * epoch[cell.dataset, cell.model, cell.recipe]
        works.append(Work(seconds, sizes[size], tuple(place[key] for key in task.needs if key in place)))
    return works


@cache
def _shapes(model: str, shape: tuple[int, int, int], classes: int) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    from prunebench import models
    from prunebench.masks import prunable_modules

    built = models.build(model, shape, classes)
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    return shapes, frozenset(prunable_modules(built))


def _stored_bytes(cell: Cell, data: _Data, sparsity: float) -> float:
    from prunebench.scale import checkpoint_bytes

    return checkpoint_bytes(*_shapes(cell.model, data.shape, data.classes), sparsity)


def _training_bytes(cell: Cell, data: _Data) -> float:
    # The state kept of a training: weights, what the optimizer remembers of each, a byte of mask.
    weights = sum(math.prod(shape) for shape in _shapes(cell.model, data.shape, data.classes)[0].values())
    return weights * (4.0 * (3 if cell.recipe.optimizer == "adam" else 2) + 1.0)


def _steps_per_epoch(cell: Cell, data: _Data) -> int:
    return math.ceil(data.train / cell.recipe.batch_size)


def _described(lab: Any, name: str) -> _Data:
    found = lab.data(name)
    images = len(found.train) + len(found.validation) + len(found.test)
    return _Data(images, len(found.train), found.input_shape, found.classes, found.content)


def _assumed(text: str | None) -> _Data | None:
    if text is None:
        return None
    match = _IMAGES.fullmatch(text)
    if match is None or "0" in match.groups():
        raise UsageError(f"--images {text!r} can't be read; write NxCxHxW:K, for example 1281167x3x64x64:1000")
    images, channels, height, width, classes = map(int, match.groups())
    # A tenth is held out for validation.
    return _Data(images, round(0.9 * images), (channels, height, width), classes, None)


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} TB"
