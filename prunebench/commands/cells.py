"""What `prunebench run` and `prunebench sweep` share: options of training, the plan, where it is carried out."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench import profiles, settings
from prunebench.commands.options import completed, known, names_of

_LISTS = tuple(axis for axis in profiles.LISTS if axis not in ("backends", "batch_sizes"))


def add_training(parser: argparse.ArgumentParser) -> None:
    """The options of training and of where things lie."""
    parser.add_argument("--epochs", help="epochs of dense training, instead of the recipe's")
    parser.add_argument("--fine-tune-epochs", dest="fine_tune_epochs", help="epochs of fine-tuning")
    recipe = parser.add_argument(
        "--recipe",
        metavar="NAME[:KEY=VALUE…]",
        help=f"one of {', '.join(profiles.recipe_names())}, or default; for example default:rewind=weights",
    )
    completed(recipe, lambda **_: ["default", *known("recipes")])
    parser.add_argument("--controls", action="store_true", default=None, help=settings.CONTROLS_HELP)
    device = parser.add_argument("--device", metavar="NAME", help=settings.DEVICE_HELP)
    completed(device, lambda **_: ("auto", "cpu", "cuda"))
    parser.add_argument("--logs", metavar="DIR", help=settings.LOGS_HELP)
    parser.add_argument("--tensorboard", action="store_true", help="TensorBoard's events beside the CSV under --logs")
    parser.add_argument("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    parser.add_argument(
        "--store", metavar="DIR|URL", help="folder or URL of checkpoints; default PRUNEBENCH_STORE or .prunebench/store"
    )


def add_axis(parser: argparse.ArgumentParser, flag: str, axis: str, **more: Any) -> None:
    """One of the grid's lists as an option, its names completed where it has names."""
    action = parser.add_argument(flag, dest=axis, **more)
    if axis in profiles.NAMED:
        completed(action, names_of(profiles.NAMED[axis]))


def add_lists(parser: argparse.ArgumentParser) -> None:
    """--profile, and a list per axis of a grid of checkpoints: what runs them later changes none."""
    profile = parser.add_argument("--profile", help=f"one of {', '.join(profiles.names())}")
    completed(profile, names_of("profiles"))
    for axis in _LISTS:
        add_axis(parser, f"--{axis.replace('_', '-')}", axis, metavar="LIST", help="comma-separated")


def plan_of_lists(options: argparse.Namespace) -> profiles.Plan:
    """The grid of `add_lists`' options; UsageError names a value that can't be."""
    given = {axis: getattr(options, axis) for axis in _LISTS}
    return plan(options, {axis: value for axis, value in given.items() if value is not None}, options.profile)


def lab(options: argparse.Namespace, progress: Any, device: str | None = None) -> Any:
    """Where cells are made: the store and the data that the options name; device: another than the options'."""
    from prunebench.pipeline import Lab
    from prunebench.remote_store import open_store

    root = settings.project_root()
    return Lab(
        open_store(settings.store_place(options.store, root)),
        settings.data(options.data, root),
        progress.tell,
        progress.said,
        waits=progress.waits,
        **settings.training(device or options.device, options.logs, options.tensorboard),
    )


def plan(options: argparse.Namespace, axes: dict[str, Any], profile: str | None) -> profiles.Plan:
    """The grid that the options span; UsageError names a value that can't be."""
    lengths = {name: getattr(options, name) for name in ("epochs", "fine_tune_epochs", "recipe", "controls")}
    return profiles.plan(profile, {**axes, **lengths})
