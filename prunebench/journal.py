"""Facts of a running benchmark, one line each, so that a killed run loses at most the case in progress.

pytest-benchmark writes its file at the end of a session only. The journal lies beside it under the same name with
the ending .partial.jsonl, is read like a saved run, and goes away once the run's own file is there.
"""

from __future__ import annotations

import errno
import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prunebench.atomic import check_folder
from prunebench.errors import UsageError

RUN_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,63}$")
SUFFIX = ".partial.jsonl"
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")  # with whatever behind a dot, on Windows


def check_run_name(name: str) -> str:
    """The name, or UsageError where it can't be a run's (it becomes part of a file name)."""
    if not RUN_NAME.fullmatch(name) or _RESERVED.fullmatch(name.partition(".")[0]):
        raise UsageError(
            f"--benchmark-save={name!r} can't be a run's name; names match {RUN_NAME.pattern} "
            "and are no device of Windows such as con or nul"
        )
    return name


class Journal:
    """An append-only file of facts; the first line tells of the machine."""

    def __init__(self, folder: Path, name: str, machine: dict[str, Any]) -> None:
        self.folder, self.name = Path(folder), name
        check_folder(self.folder)  # told before the run, not after it
        self.path = self.folder / f"{name}-{os.getpid()}{SUFFIX}"
        if self.folder.is_dir():
            self.path.unlink(missing_ok=True)  # of a dead process with the same number
        self._before = set(self.folder.glob(f"*_{name}.json"))
        self._header = {"machine": machine, "datetime": datetime.now(timezone.utc).isoformat()}

    def write(self, facts: dict[str, Any]) -> None:
        """Append one case's facts and sync them to disk; UsageError in one line where that can't be."""
        lines = [facts] if self.path.exists() else [self._header, facts]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                before = file.tell()
                try:
                    if file.write(text.encode()) != len(text):  # json.dumps gives ASCII alone
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)  # half a line in the middle would spoil what is appended later
                    raise
        except OSError as error:
            raise UsageError(f"can't write {self.path}: {error.strerror or error}; free space") from error

    def close(self) -> None:
        """Remove the journal, and older ones of this name, if the run was saved; else it stays as the only trace."""
        if set(self.folder.glob(f"*_{self.name}.json")) - self._before:
            for path in [self.path, *self.folder.glob(f"{self.name}-*{SUFFIX}")]:
                owner = path.name.removesuffix(SUFFIX).rpartition("-")[2]
                if path == self.path or (owner.isdigit() and not _alive(int(owner))):
                    path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
