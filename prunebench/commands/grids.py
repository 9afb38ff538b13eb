"""What commands that name a grid share: its options, the plan they give, and where checkpoints and data lie."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from prunebench import profiles, settings

# The lists that span a grid of checkpoints: what runs them later changes none.
AXES = tuple(axis for axis in profiles.LISTS if axis not in ("backends", "batch_sizes"))


def add_lists(parser: argparse.ArgumentParser) -> None:
    """--profile, and a list per axis."""
    parser.add_argument("--profile", help=f"one of {', '.join(profiles.names())}")
    for axis in AXES:
        parser.add_argument(f"--{axis.replace('_', '-')}", metavar="LIST", help="comma-separated")


def add_lengths(parser: argparse.ArgumentParser) -> None:
    """What changes the recipe or adds controls."""
    parser.add_argument("--epochs", help="epochs of dense training, instead of the recipe's")
    parser.add_argument("--fine-tune-epochs", dest="fine_tune_epochs", help="epochs of fine-tuning")
    parser.add_argument(
        "--recipe",
        metavar="NAME[:KEY=VALUE…]",
        help=f"one of {', '.join(profiles.recipe_names())}, or default; for example default:rewind=weights",
    )
    parser.add_argument("--controls", action="store_true", default=None, help=settings.CONTROLS_HELP)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where training runs, and where its logs, data and checkpoints lie."""
    parser.add_argument("--device", metavar="NAME", help=settings.DEVICE_HELP)
    parser.add_argument("--logs", metavar="DIR", help=settings.LOGS_HELP)
    parser.add_argument("--tensorboard", action="store_true", help="TensorBoard's events beside the CSV under --logs")
    parser.add_argument("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    parser.add_argument(
        "--store",
        metavar="DIR|URL",
        help="folder or URL of checkpoints; default PRUNEBENCH_STORE or .prunebench/store",
    )


def plan_of(options: argparse.Namespace, axes: dict[str, Any], profile: str | None) -> profiles.Plan:
    """The grid of a profile with lists and lengths; raises UsageError."""
    lengths = {name: getattr(options, name) for name in ("epochs", "fine_tune_epochs", "recipe", "controls")}
    return profiles.plan(profile, {**axes, **lengths})


def plan_of_lists(options: argparse.Namespace) -> profiles.Plan:
    """The same from `add_lists`' options."""
    given = {axis: getattr(options, axis) for axis in AXES}
    return plan_of(options, {axis: value for axis, value in given.items() if value is not None}, options.profile)


def lab_of(options: argparse.Namespace, progress: Any, device: str | None = None) -> Any:
    """The lab that the options describe, which tells `progress`; device: another than the options'."""
    from prunebench.pipeline import Lab
    from prunebench.remote_store import open_store

    root = settings.project_root()
    return Lab(
        open_store(settings.store_place(options.store, root)),
        settings.data(options.data, root),
        progress.tell,
        progress.said,
        **settings.training(device or options.device, options.logs, options.tensorboard),
    )


def stderr(text: str) -> None:
    """A line beside the results."""
    print(text, file=sys.stderr, flush=True)
