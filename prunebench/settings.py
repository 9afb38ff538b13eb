"""Where the store and the data lie: the option, else the environment, else a hidden folder under the project."""

from __future__ import annotations

import os
from pathlib import Path


def store(option: str | None, root: Path) -> Path:
    """The store's folder: --store, PRUNEBENCH_STORE, or .prunebench/store."""
    return Path(option or os.environ.get("PRUNEBENCH_STORE") or root / ".prunebench" / "store").expanduser()


def data(option: str | None, root: Path) -> Path:
    """The folder of datasets: --data, PRUNEBENCH_DATA, or .prunebench/data."""
    return Path(option or os.environ.get("PRUNEBENCH_DATA") or root / ".prunebench" / "data").expanduser()


def project_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds results/ and pyproject.toml; else the present folder."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "results").is_dir():
            return folder
    return here
