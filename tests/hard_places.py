"""`prunebench` where it is hard, each command a process forked from one that has imported torch already.

`python hard_places.py FOLDER` writes FOLDER/report.json: {place: [what each command ended with and said, …]}. Run it
under `unshare --mount` where that is allowed: the full disks are small file systems that go with the process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crashing import exit_code, forked, prepare

SWEEP = ("sweep", "--profile", "smoke", "--datasets", "digits:size=8", "--epochs", "2", "--fine-tune-epochs", "1",
         "--seeds", "0,1")  # fmt: skip
CELLS = 4
NOBODY = 65534
DENSE_BYTES = 200_000  # of one checkpoint of this grid, at most


def command(folder: Path, *arguments: str | Path, before: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Runs `prunebench` in a child, after `before`: its exit code and its lines."""

    def work() -> int:
        before()
        from prunebench import cli

        return cli.main([*map(str, arguments)])

    code = exit_code(forked(work, folder / "output.txt"))
    return {"code": code, "lines": (folder / "output.txt").read_text().splitlines()}


def files(store: Path) -> list[str]:
    return sorted(str(f.relative_to(store)) for f in store.rglob("*") if f.is_file())


def full(folder: Path, size: int, spare: int) -> dict[str, Any]:
    """A sweep on a file system of so many bytes, what it left, and the same with room; spare: asked for beforehand."""
    import prunebench.store

    disk = folder / f"disk{size}"
    disk.mkdir()
    options = f"size={size},nr_inodes=300"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        return {"skip": mounted.stderr.strip()}

    def little() -> None:
        prunebench.store.SPARE_BYTES = spare

    first = command(folder, *SWEEP, "--store", disk / "store", before=little)
    left = files(disk / "store")
    verified = command(folder, "store", "verify", "--store", disk / "store")
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    again = command(folder, *SWEEP, "--store", disk / "store")
    return {"first": first, "left": left, "verified": verified, "again": again, "all": files(disk / "store")}


def limited(folder: Path) -> dict[str, Any]:
    """A sweep whose files may not grow beyond half a checkpoint, and one whose may."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (DENSE_BYTES // 2, DENSE_BYTES // 2))

    store = folder / "limited"
    first = command(folder, *SWEEP, "--store", store, before=limit)
    return {"first": first, "left": files(store), "again": command(folder, *SWEEP, "--store", store)}


def read_only(folder: Path) -> dict[str, Any]:
    """Commands of somebody whom permissions bind on a store that is full, and may only be read."""
    folder.chmod(0o755)
    store = folder / "read only"
    command(folder, *SWEEP, "--store", store)
    subprocess.run(["chmod", "-R", "a-w", str(store)], check=True)

    def nobody() -> None:
        from prunebench import cli

        cli.main([*SWEEP, "--store", str(store)])  # imports what somebody without rights may not even read
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        assert not os.access(store, os.W_OK)

    def state() -> dict[str, int]:
        return {str(f): f.stat().st_mtime_ns for f in store.rglob("*")}

    before = state()
    asked = {
        "hits": SWEEP,
        "misses": (*SWEEP, "--seeds", "7"),
        "gc": ("store", "gc"),
        "ls": ("store", "ls"),
        "verify": ("store", "verify"),
    }
    done = {what: command(folder, *words, "--store", store, before=nobody) for what, words in asked.items()}
    same = state() == before
    subprocess.run(["chmod", "-R", "u+w", str(store)], check=True)
    return {**done, "same": same}


def odd_name(folder: Path) -> dict[str, Any]:
    """Commands on a store with spaces, quotes and Unicode in its path."""
    store = folder / "räume und λ 'zwei' 🧠" / "store"
    sweeps = [command(folder, *SWEEP, "--store", store) for _ in range(2)]
    listed = command(folder, "store", "ls", "--json", "--store", store)
    entry = json.loads("\n".join(listed["lines"]))["entries"][0]
    found = command(folder, "store", "path", entry["key"], "--store", store)
    kept = [command(folder, "store", action, "--store", store) for action in ("verify", "gc")]
    whole = Path(entry["path"], "meta.json").is_file()
    return {"sweeps": sweeps, "entry": entry, "path": found, "kept": kept, "whole": whole}


def main(folder: Path) -> None:
    import functools

    prepare()
    from prunebench import pipeline
    from prunebench.executors import driving  # noqa: F401 - reads Lab before it is replaced

    pipeline.Lab = functools.partial(pipeline.Lab, keep_seconds=30.0)  # what is to fail is publishing
    report = {
        "told before": full(folder, 2**20 + DENSE_BYTES // 2, 2**20),
        "found out": full(folder, 2 * DENSE_BYTES, 0),
        "limited": limited(folder),
        "read only": read_only(folder),
        "odd name": odd_name(folder),
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
