"""Where the store and the data lie: the option, else the environment, else a hidden folder under the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError

CONTROLS_HELP = "beside every pruned cell: random and magnitude with the cell's own share of every layer"
DEVICE_HELP = "where training runs: auto (a GPU if there is one), cpu or cuda; default auto. Measuring is on the CPU"
INTERRUPTED = "interrupted; the store is valid and holds what was finished: the same command goes on from there"
LOGS_HELP = "folder for a log.csv per checkpoint trained: epoch, rate, loss, validation accuracy; default none"


def store(option: str | None, root: Path) -> Path:
    """The store's folder: --store, PRUNEBENCH_STORE, or .prunebench/store; UsageError for a URL."""
    place = store_place(option, root)
    if "://" in place:
        raise UsageError(f"the store {place} is a URL, and this needs a folder; give one with --store DIR")
    return Path(place)


def store_place(option: str | None, root: Path) -> str:
    """The same where a URL can be used as well (`s3://bucket/store`): it comes back as it is."""
    given = option or os.environ.get("PRUNEBENCH_STORE")
    return given if given and "://" in given else str(Path(given or root / ".prunebench" / "store").expanduser())


def data(option: str | None, root: Path) -> Path:
    """The folder of datasets: --data, PRUNEBENCH_DATA, or .prunebench/data."""
    return Path(option or os.environ.get("PRUNEBENCH_DATA") or root / ".prunebench" / "data").expanduser()


def check_training(device: str | None, logs: str | None, tensorboard: bool) -> None:
    """UsageError for values of --device, --logs and --tensorboard that can't be; imports no torch."""
    from prunebench.devices import check_device
    from prunebench.pipeline.training_log import check_tensorboard

    check_device(device)
    if tensorboard:
        if not logs:
            raise UsageError("--tensorboard writes beside the CSV; give --logs DIR as well")
        check_tensorboard()


def training(device: str | None, logs: str | None, tensorboard: bool) -> dict[str, Any]:
    """The fields of a Lab that those options set: --device auto is a GPU where there is one."""
    from prunebench.atomic import make_folder
    from prunebench.devices import device_of

    check_training(device, logs, tensorboard)
    folder = Path(logs).expanduser() if logs else None
    if folder is not None:
        make_folder(folder)
    return {"device": device_of(device), "logs": folder, "tensorboard": tensorboard}


def project_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds results/ and pyproject.toml; else the present folder."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "results").is_dir():
            return folder
    return here


def results(given: str | None) -> Path:
    """The folder with saved runs and what is made of them: the one given, else `results` under the project's root."""
    return Path(given) if given else project_root() / "results"
