"""What is in a store, read from the entries' metadata, with an index so that 100,000 of them take a second or two.

The index is a cache and never a source: a row counts only while its metadata file is the same file, by inode, time of
change and size, and that time was well over when it was read. Without it, or where it is damaged, all is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prunebench.atomic import write_bytes
from prunebench.cell import Cell, per_mille
from prunebench.errors import UsageError
from prunebench.spec import Spec
from prunebench.store import KEY, Store, entries, names_in, schemas
from prunebench.untrusted import plain_line

INDEX = "index.tsv"
INDEX_SCHEMA = 1
SETTLED_SECONDS = 2.0  # a file changed later than that before it is read may change again without showing it
_NAME, _PARENT = 2, 9  # columns of a row
_AXES = ("criterion", "granularity", "scope", "schedule")


class Entry(NamedTuple):
    """One entry. status: `ok`, `diverged`; `damaged`, `newer`, `unreadable` where it can't be told.

    accuracy: fraction of the validation split, None where there is none; bytes: of its files, when last read; created:
    seconds since 1970; made_from: keys of the entries it was made from.
    """

    key: str
    name: str
    kind: str
    status: str
    accuracy: float | None
    bytes: int
    created: float
    revision: int
    made_from: tuple[str, ...]


def entries_of(store: Store) -> list[Entry]:
    """Every entry, by name. Renews the index where it can be written."""
    latest = time.time() - SETTLED_SECONDS
    known, stat = _read_index(store.root), os.stat
    rows: dict[str, list[str]] = {}
    kept: list[str] = []
    fresh = False
    artifacts = str(store.root / "artifacts")
    for shard in names_in(artifacts):
        for key in names_in(f"{artifacts}/{shard}"):
            if not KEY.fullmatch(key):
                continue
            try:
                found = stat(f"{artifacts}/{shard}/{key}/{entries.META}")
                stamp = f"{key}\t{found.st_ino}.{found.st_ctime_ns}.{found.st_size}\t"
                settled = 0 < found.st_ctime < latest
            except OSError:
                stamp, settled = f"{key}\t\t", False
            line = known.get(key)
            if line is not None and settled and line.startswith(stamp):
                rows[key] = line.split("\t")
                kept.append(key)
                continue
            told = _told(store.path(key))
            if told is None:
                continue
            fields, certain = told
            rows[key] = [*stamp.split("\t")[:2], *map(plain_line, fields)]
            if settled and certain:
                kept.append(key)
                fresh = True
    for row in rows.values():
        if row[_NAME][0] == "?" and (parent := rows.get(row[_PARENT])) is not None:
            row[_NAME] = _as_its_parent(row[_NAME], parent[_NAME])
    if fresh or len(kept) != len(known):
        _write_index(store.root, ["\t".join(rows[key]) for key in kept])
    return sorted(map(_entry, rows.values()), key=lambda e: e[1])


def _entry(row: Sequence[str]) -> Entry:
    key, _, name, kind, status, accuracy, size, created, revision, parent, original = row
    made_from = (parent, original) if original else (parent,) if parent else ()
    measured = float(accuracy) if accuracy else None
    return Entry(key, name, kind, status, measured, int(size), float(created), int(revision), made_from)


def _told(folder: Path) -> tuple[tuple[Any, ...], bool] | None:
    """The fields of an entry's row after its stamp, and whether they may be kept; None where it is gone."""
    try:
        meta = entries.read_meta(folder)
        spec, created = meta["spec"], datetime.fromisoformat(meta["created"]).timestamp()
        status, accuracy = meta.get("status", "?"), _number(meta.get("validation_accuracy"))
        made = (int(spec.get("revision", 0)), spec.get("parent", ""), spec.get("original", ""))
        return (_name(spec), spec["kind"], status, accuracy, _size(folder), created, *made), True
    except (entries.Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
        if not folder.is_dir():
            return None
        status = "newer" if isinstance(error, schemas.OtherSchema) else "damaged"
    except entries.Unreadable:
        status = "unreadable"
    return ("?", "?", status, "", _size(folder), _changed(folder), 0, "", ""), False


def _name(spec: Mapping[str, Any]) -> str:
    """The cell's id; of a pruned one's, what its spec says: the rest is its parent's."""
    if "parent" in spec:
        axes = "-".join(_slug(spec[axis]) for axis in _AXES)
        return f"?-{axes}-s{per_mille(spec['sparsity'])}-?"
    epoch = f"-epoch{spec['epoch']}" if "epoch" in spec else ""
    return Cell(spec["dataset"], spec["model"], seed=int(spec["seed"])).id + epoch


@cache
def _slug(text: str) -> str:
    return Spec.parse(text).slug


def _as_its_parent(name: str, parent: str) -> str:
    model, _, rest = parent.partition("-")
    return f"{model}-{rest.partition('-')[0]}-{name[2:-2]}-{parent.rpartition('-')[2]}"


def _read_index(root: Path) -> dict[str, str]:
    """{key: line} of the index; empty where there is none or it isn't what was written."""
    try:
        content = (root / INDEX).read_bytes()
        head, _, body = content.partition(b"\n")
        told = json.loads(head)
        if told["schema"] != INDEX_SCHEMA or told["digest"] != hashlib.sha256(body).hexdigest():
            return {}
        return {line[:32]: line for line in body.decode().split("\n") if line}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_index(root: Path, lines: Sequence[str]) -> None:
    body = "\n".join(lines).encode()
    head = json.dumps({"schema": INDEX_SCHEMA, "digest": hashlib.sha256(body).hexdigest()})
    try:
        write_bytes(root / INDEX, head.encode() + b"\n" + body)
    except UsageError:
        return  # read-only or full: the next one reads all again


def _number(value: Any) -> Any:
    return "" if value is None else float(value)


def _size(folder: Path) -> int:
    total = 0
    for name in (entries.META, entries.WEIGHTS):
        try:
            total += os.stat(folder / name).st_size
        except OSError:
            continue
    return total


def _changed(folder: Path) -> float:
    try:
        return os.stat(folder).st_mtime
    except OSError:
        return 0.0
