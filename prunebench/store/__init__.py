"""Artifacts by content: a checkpoint with its metadata in a folder named by the hash of what made it.

An entry is written into a temporary folder beside its place, synced, and renamed; the first writer wins. Weights
are safetensors, metadata JSON with their digest, checked on every read: a damaged entry is set aside and rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.atomic import check_folder
from prunebench.errors import PrunebenchError, UsageError
from prunebench.store import entries, locks, schemas

SPARE_BYTES = 2**20  # of free disk below which nothing is begun
KEY = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[a-z0-9]{2,64}")


class StoreError(PrunebenchError, OSError):
    """The store can't be read or written; the message says where, why and what to do."""


@dataclass(frozen=True)
class Artifact:
    """A stored checkpoint: key, metadata (JSON values), and the weights (None where training diverged)."""

    key: str
    meta: Mapping[str, Any]
    state: Mapping[str, Any] | None


class Store:
    """A folder of artifacts; `set_aside` counts the damaged entries met."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.set_aside = 0

    @property
    def place(self) -> str:
        """Where it is, in words for a message."""
        return str(self.root)

    def peek(self, key: str) -> Mapping[str, Any] | None:
        """An entry's metadata, its weights unread; None where it is missing or damaged. Changes nothing."""
        try:
            return entries.read_meta(self.path(key))
        except (entries.Damaged, entries.Unreadable):
            return None

    def path(self, key: str) -> Path:
        """The folder of an entry, existing or not; UsageError for what can't be a key: it becomes a folder's name."""
        if not NAME.fullmatch(key):
            raise UsageError(f"{key!r} can't be an entry's key; keys match {NAME.pattern}")
        return self.root / "artifacts" / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return os.path.isfile(self.path(key) / entries.META)

    def keys(self) -> Iterator[str]:
        """The key of every entry, damaged ones included."""
        for shard in names_in(self.root / "artifacts"):
            yield from (key for key in names_in(self.root / "artifacts" / shard) if KEY.fullmatch(key))

    def get(self, key: str) -> Artifact | None:
        """The entry, or None where it is missing or was damaged (and is now set aside).

        Raises StoreError where it can't be read, UsageError where a newer version wrote it.
        """
        from prunebench import formats

        folder = self.path(key)
        try:
            met = entries.identity(folder)
            if met is None:
                return None
            meta = entries.read_meta(folder)
            content = entries.read_weights(folder, meta)
            state = None if content is None else formats.from_bytes(content)
        except entries.Unreadable as error:
            raise StoreError(f"{error}; mend that, or name another store with --store DIR") from error
        except schemas.OtherSchema:
            raise
        except (entries.Damaged, UsageError) as error:
            if entries.identity(folder) != met:
                return self.get(key)  # removed, or made again by another process, while it was read
            self.put_aside(key, str(error))
            return None
        return Artifact(key, meta, state)

    def put(
        self, key: str, spec: Mapping[str, Any], meta: Mapping[str, Any], state: Mapping[str, Any] | None
    ) -> Artifact:
        """Publish an entry, or return the one that is already there; raises StoreError where that can't be."""
        from prunebench import formats

        content = None if state is None else formats.to_bytes(state)
        whole = {
            **meta,
            "schema": schemas.SCHEMA,
            "key": key,
            "created": schemas.moment(time.time()),
            "spec": dict(spec),
            "digest": None if content is None else hashlib.sha256(content).hexdigest(),
        }
        place = self.path(key)
        temporary = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with locks.publishing(self.root):
                try:
                    temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
                    os.chmod(temporary, 0o755)  # mkdtemp's 0700 is for secrets
                    if content is not None:
                        _write(temporary / entries.WEIGHTS, content)
                    record = {**whole, "record": entries.record_of(whole)}
                    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
                    _write(temporary / entries.META, text.encode())
                    _sync(temporary)
                    try:
                        os.rename(temporary, place)
                    except OSError:
                        first = self.get(key)
                        if first is None:
                            raise
                        return first
                    _sync(place.parent)
                finally:
                    if temporary is not None:
                        shutil.rmtree(temporary, ignore_errors=True)
        except StoreError:
            raise
        except OSError as error:
            raise self._unwritable(error) from error
        return Artifact(key, whole, state)

    @contextmanager
    def only_maker(self, key: str, wait: bool = True) -> Iterator[None]:
        """While it lasts no other process makes this entry; raises Busy where one does and `wait` is False."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.only_one(self.lock(key), wait))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def lock(self, key: str) -> Path:
        """The lock file of whoever makes an entry."""
        return self.root / "making" / f"{key}.lock"

    def check_writable(self) -> None:
        """StoreError unless a new entry could be published: asked before training, not after."""
        try:
            check_folder(self.root, SPARE_BYTES)
        except UsageError as error:
            raise StoreError(
                f"the store at {self.root} can't be written and lacks what this run needs ({error}); "
                "name another one with --store DIR"
            ) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"can't write the store at {self.root}: {error.strerror or error}; "
            "free space or name another one with --store DIR"
        )

    def put_aside(self, key: str, reason: str, unfinished: Path | None = None) -> None:
        """Move a damaged entry out of the way, with the reason; nothing where another process already did.

        unfinished: the file of its training's state, which is then what is moved.
        """
        folder, damaged = unfinished or self.path(key), self.root / "damaged"
        target = None
        try:
            damaged.mkdir(parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=damaged))
            # Over the empty folder: its name is nobody else's.
            os.rename(folder, target if unfinished is None else target / unfinished.name)
        except OSError as error:
            if target is not None:
                target.rmdir()
            if isinstance(error, FileNotFoundError):
                return
            raise StoreError(
                f"the entry {folder} is damaged ({reason}) and can't be set aside: {error.strerror}; remove it by hand"
            ) from error
        self.set_aside += 1
        with suppress(OSError):
            (target / "reason.txt").write_text(reason + "\n")


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """What a folder holds, by name; nothing where it is none."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
