"""Keeping a store in order: every digest read again, and what kills and time left behind removed.

Nothing goes that a live process is writing: publishing and making are told by locks, which die with their process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prunebench.atomic import check_folder
from prunebench.errors import UsageError
from prunebench.store import Store, StoreError, entries, locks, schemas
from prunebench.store.catalog import Entry, entries_of

DAY = 86400.0


class Trouble(NamedTuple):
    """An entry that can't be used. what: `damaged`, `newer` or `unreadable`."""

    key: str
    what: str
    reason: str


class Leftover(NamedTuple):
    """Something that may go, and why; bytes: of its files."""

    path: Path
    why: str
    bytes: int


def verify(store: Store, dry_run: bool = False) -> Iterator[tuple[str, Trouble | None]]:
    """(key, what is wrong or None) of every entry, read whole; damaged ones are set aside unless `dry_run`."""
    for key in store.keys():  # noqa: SIM118 - it is no mapping
        folder = store.path(key)
        try:
            met = entries.identity(folder)
            if met is None:
                continue
            entries.read_weights(folder, entries.read_meta(folder))
            yield key, None
        except entries.Damaged as error:
            if entries.identity(folder) != met:
                continue  # removed, or made again, while it was read
            if not dry_run:
                store.put_aside(key, str(error))
            yield key, Trouble(key, "damaged", str(error))
        except schemas.OtherSchema as error:
            yield key, Trouble(key, "newer", str(error))
        except entries.Unreadable as error:
            yield key, Trouble(key, "unreadable", str(error))


def clean(
    store: Store, older_than: float | None = None, unreachable: bool = False, revision: int = 0, dry_run: bool = False
) -> list[Leftover]:
    """Remove leftovers, and entries where asked; returns what went, or with `dry_run` what would.

    Leftovers: half-written entries and states of processes that died, states of trainings that are published, locks
    nobody holds, entries that were set aside. older_than: days, entries and states made earlier, but for those that
    an entry which stays was made from; unreachable: entries of another `revision` of training, which nothing reads.
    Raises Busy where the store is written to all the time, StoreError where it can't be written.
    """
    if not store.root.is_dir():
        return []
    if not dry_run:
        try:
            check_folder(store.root)
        except UsageError as error:
            raise StoreError(f"the store at {store.root} can't be cleaned up: {error}") from error
    gone: list[Leftover] = []
    with locks.alone(store.root) as nobody_writes:
        for found in _half_written(store, nobody_writes):
            _remove(found, gone, dry_run)
        for found in _expired(store, older_than, unreachable, revision):
            _remove(found, gone, dry_run)
    for key, found in _states(store, older_than):
        if dry_run:
            if not locks.held(store.lock(key)):
                gone.append(found)
            continue
        try:
            with store.only_maker(key, wait=False):
                if found.path == store.lock(key):
                    gone.append(found)  # it goes with its holder: now us
                else:
                    _remove(found, gone, dry_run)
        except locks.Busy:
            continue
    for found in _set_aside(store):
        _remove(found, gone, dry_run)
    return gone


def _half_written(store: Store, nobody_writes: bool) -> Iterator[Leftover]:
    for shard in _inside(store.root / "artifacts"):
        for path in _inside(shard):
            # Without locks only time can tell that its writer is dead.
            if path.name.startswith(".") and (nobody_writes or _age(path) > DAY):
                yield _leftover(path, "half written")
    for path in _inside(store.root):
        # Readers write the index and lock nothing; none takes a minute for it, whichever way the clock was put.
        if path.name.startswith(".index.") and abs(_age(path)) > 60:
            yield _leftover(path, "half written")


def _expired(store: Store, older_than: float | None, unreachable: bool, revision: int) -> Iterator[Leftover]:
    if older_than is None and not unreachable:
        return
    every = [e for e in entries_of(store) if e.status not in ("damaged", "newer", "unreadable")]
    now = time.time()
    reasons: dict[str, str] = {}
    for e in every:
        if unreachable and e.revision != revision:
            reasons[e.key] = f"of revision {e.revision} of training"
        elif older_than is not None and now - e.created > older_than * DAY:
            reasons[e.key] = f"{(now - e.created) / DAY:.0f} days old"
    needed = _needed([e for e in every if e.key not in reasons], {e.key: e for e in every})
    for e in every:
        if e.key in reasons and e.key not in needed and not locks.held(store.lock(e.key)):
            yield Leftover(store.path(e.key), f"{e.name}, {reasons[e.key]}", e.bytes)


def _needed(kept: list[Entry], by_key: dict[str, Entry]) -> set[str]:
    needed: set[str] = set()
    waiting = [key for e in kept for key in e.made_from]
    while waiting:
        key = waiting.pop()
        if key not in needed and key in by_key:
            needed.add(key)
            waiting += by_key[key].made_from
    return needed


def _states(store: Store, older_than: float | None) -> Iterator[tuple[str, Leftover]]:
    """Unfinished trainings' files and lock files that may go if nobody holds their key's lock."""
    for path in _inside(store.root / "unfinished"):
        key = path.name.removeprefix(".").partition(".")[0]
        if path.name.startswith("."):
            yield key, _leftover(path, "half written")
        elif key in store:
            yield key, _leftover(path, "the training is published")
        elif older_than is not None and _age(path) > older_than * DAY:
            yield key, _leftover(path, f"an unfinished training, {_age(path) / DAY:.0f} days old")
    for path in _inside(store.root / "making"):
        yield path.name.partition(".")[0], _leftover(path, "a lock nobody holds")


def _set_aside(store: Store) -> Iterator[Leftover]:
    for path in _inside(store.root / "damaged"):
        yield _leftover(path, "set aside as damaged")


def _remove(found: Leftover, gone: list[Leftover], dry_run: bool) -> None:
    if not dry_run:
        try:
            if found.path.is_dir() and not found.path.is_symlink():
                # Out of its place at once: a kill in the middle of removing it leaves no half entry.
                doomed = found.path
                if not doomed.name.startswith("."):
                    doomed = Path(tempfile.mkdtemp(prefix=f".{found.path.name}-", dir=found.path.parent))
                    os.rename(found.path, doomed)
                shutil.rmtree(doomed)
            else:
                found.path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"can't remove {found.path}: {error.strerror or error}") from error
    gone.append(found)


def _leftover(path: Path, why: str) -> Leftover:
    files = [path] if not path.is_dir() else path.rglob("*")
    return Leftover(path, why, sum(f.lstat().st_size for f in files if f.is_file()))


def _age(path: Path) -> float:
    """Seconds since it changed; below 0 where the clock went back since, which makes nothing old."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
