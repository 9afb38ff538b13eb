"""Checks of what lies on disk: the store, the datasets, the saved runs. Nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prunebench import registry
from prunebench.atomic import check_folder
from prunebench.checks.check import BROKEN, OFF, OK, WARNING, Check
from prunebench.datasets.places import PLACES
from prunebench.errors import UsageError
from prunebench.runs import read_run, run_files

SCARCE = 2**30  # bytes: a paper grid's checkpoints are some hundred megabytes
NO_FILES = ("digits",)  # embedded in scikit-learn


def store(folder: Path) -> Iterator[Check]:
    """Where checkpoints lie, whether new ones can, how many there are, and what was set aside."""
    try:
        check_folder(folder)
    except UsageError as error:
        remedy = "name another folder with --store DIR or PRUNEBENCH_STORE"
        if folder.is_dir():
            yield Check("store", "place", WARNING, f"{folder}: serves what it has, takes nothing new ({error})", remedy)
        else:
            yield Check("store", "place", BROKEN, f"{folder}: {error}", remedy)
            return
    else:
        yield Check("store", "place", OK, str(folder) if folder.is_dir() else f"{folder}, made when it is first needed")
    if not folder.is_dir():
        return
    count, size = _contents(folder / "artifacts")
    yield Check("store", "artifacts", OK, f"{count} checkpoints, {size / 1e6:,.0f} MB")
    damaged = _entries(folder / "damaged")
    if damaged:
        found = f"{damaged} damaged entries were set aside; they are made again when needed"
        yield Check(
            "store", "damaged", WARNING, found, f"check the disk if they become more; then empty {folder / 'damaged'}"
        )
    unfinished = _entries(folder / "unfinished")
    if unfinished:
        yield Check("store", "unfinished", OK, f"{unfinished} trainings were cut off and go on when asked for again")
    free = shutil.disk_usage(folder).free
    if free < SCARCE:
        yield Check("store", "space", WARNING, f"{free / 1e6:,.0f} MB left on its disk", "free some, or move the store")


def _contents(folder: Path) -> tuple[int, int]:
    """(published entries, their bytes)."""
    count = size = 0
    for place, _, files in os.walk(folder):
        if not Path(place).name.startswith("."):  # an entry still being written
            count += "meta.json" in files
            size += sum((Path(place) / name).stat().st_size for name in files)
    return count, size


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def data(folder: Path) -> Iterator[Check]:
    """Which datasets can be used at once; whole files aren't read."""
    for name in registry.names("datasets"):
        place = PLACES.get(name)
        if name in NO_FILES:
            yield Check("data", name, OK, "ready, embedded in scikit-learn")
        elif place is None:
            yield Check("data", name, OK, "where its name says; see `prunebench list datasets`")
        elif (folder / place).exists():
            yield Check("data", name, OK, f"ready at {folder / place}")
        else:
            first = "" if place.endswith(".tar") else "downloaded on first use, else "
            yield Check("data", name, OFF, f"not at {folder / place}", f"{first}put it there, or use --data DIR")


def saved_runs(results: Path) -> Iterator[Check]:
    """How many runs are saved, and which file isn't one."""
    files = run_files(results / "runs")
    bad = []
    for path in files:
        try:
            read_run(path)
        except UsageError as error:
            bad.append(Check("results", path.name, WARNING, str(error), f"move {path} away: tables stop at it"))
    yield Check("results", "runs", OK, f"{len(files) - len(bad)} saved runs in {results / 'runs'}")
    yield from bad
