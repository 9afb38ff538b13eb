"""Reading one entry of the store: its metadata and its weights, each checked by its digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.store import schemas
from prunebench.untrusted import parse_json, plain_line, read_bytes

MOST = 1 << 40  # bytes of one file
META, WEIGHTS = "meta.json", "weights.safetensors"


class Damaged(Exception):
    """An entry that isn't what was published; the message says why."""


class Unreadable(Exception):
    """An entry that may be whole and can't be read by this process; the message says why."""


def read_meta(folder: Path) -> dict[str, Any]:
    """An entry's metadata as of today's schema; raises Damaged, Unreadable or OtherSchema."""
    content, changed = _read(folder / META)
    return meta_of(content, changed, folder.name, f"the entry {folder}")


def meta_of(content: bytes, changed: float, key: str, what: str) -> dict[str, Any]:
    """The same of a file's content. changed: when it was, in seconds since 1970; what: its name in a message."""
    try:
        stored = parse_json(content)
        if not isinstance(stored, dict):
            raise ValueError("its metadata are of another kind")
        schemas.check(stored.get("schema"), what)
        if "record" not in stored:
            raise ValueError("the record's digest is missing")
        if stored.pop("record") != record_of(stored):
            raise ValueError("the record's digest differs")
        meta = schemas.up_to_date(stored, changed)
        if meta["key"] != key:
            raise ValueError(f"it is the entry {meta['key']} under another's name")
        return meta
    except schemas.OtherSchema:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(plain_line(error)) from error


def read_weights(folder: Path, meta: Mapping[str, Any]) -> bytes | None:
    """The content of its weights, None where there are none; raises Damaged or Unreadable."""
    if meta["digest"] is None:
        return None
    content, _ = _read(folder / WEIGHTS)
    if hashlib.sha256(content).hexdigest() != meta["digest"]:
        raise Damaged("the weights' digest differs")
    return content


def record_of(meta: Mapping[str, Any]) -> str:
    """The digest of metadata without their record."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True, allow_nan=False).encode()).hexdigest()


def identity(folder: Path) -> tuple[int, int] | None:
    """What tells one folder from another that takes its place; None where there is none. Raises Unreadable."""
    try:
        found = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{folder} can't be read: {error.strerror or error}") from error
    return found.st_ino, found.st_mtime_ns


def _read(path: Path) -> tuple[bytes, float]:
    try:
        return read_bytes(path, MOST), os.stat(path).st_mtime
    except ValueError as error:
        raise Damaged(f"{path.name} can't be used: {error}") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{path.name} is missing") from error
    except OSError as error:
        # No permission, too many open files, a share that is gone: nothing that making it again would mend.
        raise Unreadable(f"{path} can't be read: {error.strerror or error}") from error
