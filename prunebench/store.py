"""Artifacts by content: a checkpoint with its metadata in a folder named by the hash of what made it.

An entry is written into a temporary folder beside its place, synced, and renamed; the first writer wins. Weights
are safetensors, metadata JSON with their digest, checked on every read: a damaged entry is set aside and rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench import formats
from prunebench.atomic import check_folder
from prunebench.errors import PrunebenchError, UsageError

SCHEMA = 1


class StoreError(PrunebenchError, OSError):
    """The store can't be written; the message says where, why and what to do."""


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

    def path(self, key: str) -> Path:
        """The folder of an entry, existing or not."""
        return self.root / "artifacts" / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return (self.path(key) / "meta.json").is_file()

    @property
    def place(self) -> str:
        """Where it is, in words for a message."""
        return str(self.root)

    def peek(self, key: str) -> Mapping[str, Any] | None:
        """An entry's metadata, its weights unread; None where it is missing or damaged. Changes nothing."""
        try:
            return read_record((self.path(key) / "meta.json").read_bytes())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def get(self, key: str) -> Artifact | None:
        """The entry, or None where it is missing or was damaged (and is now set aside)."""
        folder = self.path(key)
        if not folder.exists():
            return None
        try:
            meta = read_record((folder / "meta.json").read_bytes())
            state = None
            if meta["digest"] is not None:
                content = (folder / "weights.safetensors").read_bytes()
                if hashlib.sha256(content).hexdigest() != meta["digest"]:
                    raise UsageError("the weights' digest differs")
                state = formats.from_bytes(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._put_aside(folder, str(error))
            return None
        return Artifact(key, meta, state)

    def put(
        self, key: str, spec: Mapping[str, Any], meta: Mapping[str, Any], state: Mapping[str, Any] | None
    ) -> Artifact:
        """Publish an entry, or return the one that is already there; raises StoreError where that can't be."""
        content = None if state is None else formats.to_bytes(state)
        whole = {
            **meta,
            "schema": SCHEMA,
            "spec": dict(spec),
            "digest": None if content is None else hashlib.sha256(content).hexdigest(),
        }
        place = self.path(key)
        temporary = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
            if content is not None:
                _write(temporary / "weights.safetensors", content)
            record = json.dumps({**whole, "record": _record(whole)}, indent=1, sort_keys=True, allow_nan=False)
            _write(temporary / "meta.json", record.encode())
            _sync(temporary)
            try:
                os.rename(temporary, place)
            except OSError:
                first = self.get(key)
                if first is None:
                    raise
                return first
            _sync(place.parent)
        except OSError as error:
            raise StoreError(
                f"can't write the store at {self.root}: {error.strerror or error}; "
                "free space or name another one with --store DIR"
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return Artifact(key, whole, state)

    def check_writable(self) -> None:
        """StoreError unless a new entry could be published: asked before training, not after."""
        try:
            check_folder(self.root)
        except UsageError as error:
            raise StoreError(
                f"the store at {self.root} can't be written and lacks what this run needs ({error}); "
                "name another one with --store DIR"
            ) from error

    def _put_aside(self, folder: Path, reason: str) -> None:
        self.set_aside += 1
        target = self.root / "damaged" / f"{folder.name}-{os.getpid()}-{self.set_aside}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, target)
            (target / "reason.txt").write_text(reason + "\n")
        except OSError as error:
            raise StoreError(
                f"the entry {folder} is damaged ({reason}) and can't be set aside: {error.strerror}; remove it by hand"
            ) from error


def read_record(content: bytes) -> dict[str, Any]:
    """What a meta.json holds; ValueError, TypeError, KeyError or AttributeError where it isn't one, and whole."""
    meta: dict[str, Any] = json.loads(content)
    if meta.get("schema") != SCHEMA:
        raise UsageError(f"schema {meta.get('schema')}, this version reads {SCHEMA}")
    if meta.pop("record") != _record(meta):
        raise UsageError("the record's digest differs")
    return meta


def _record(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True, allow_nan=False).encode()).hexdigest()


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
