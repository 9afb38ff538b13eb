"""What is in a store, read from the entries' metadata, with an index so that 100,000 of them take a second or two.

The index is a cache and never a source: a row counts only while its metadata file is the same file, by inode, time of
change and size, and that time was well over when it was read. Without it, or where it is damaged, all is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from prunebench.atomic import write_bytes
from prunebench.cell import per_mille
from prunebench.errors import UsageError
from prunebench.spec import Spec
from prunebench.store import Store, entries, schemas

INDEX = "index.tsv"
INDEX_SCHEMA = 1
SETTLED_SECONDS = 2.0  # a file changed later than that before it is read may change again without showing it
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
    now = time.time()
    known = _read_index(store.root)
    rows: dict[str, str] = {}
    kept: dict[str, str] = {}
    artifacts = str(store.root / "artifacts")
    for key in store.keys():  # noqa: SIM118 - it is no mapping
        try:
            found = os.stat(f"{artifacts}/{key[:2]}/{key}/{entries.META}")
            stamp = f"{found.st_ino}.{found.st_ctime_ns}.{found.st_size}\t"
            settled = 0 < found.st_ctime < now - SETTLED_SECONDS
        except OSError:
            stamp, settled = "\t", False
        row = known.get(key)
        if row is None or not settled or not row.startswith(stamp):
            told = _told(store.path(key))
            if told is None:
                continue
            fields, certain = told
            row = stamp + "\t".join(" ".join(str(value).split()) for value in fields)
            settled = settled and certain
        rows[key] = row
        if settled:
            kept[key] = row
    if kept != known:
        _write_index(store.root, kept)
    return _named(rows)


def _told(folder: Path) -> tuple[tuple[Any, ...], bool] | None:
    """The fields of an entry's row, and whether they may be kept; None where it is gone."""
    try:
        meta = entries.read_meta(folder)
        made = datetime.fromisoformat(meta["created"]).timestamp()
        accuracy = _number(meta.get("validation_accuracy"))
        return (*_part(meta["spec"]), meta.get("status", "?"), accuracy, _size(folder), made), True
    except (entries.Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
        if not folder.is_dir():
            return None
        status = "newer" if isinstance(error, schemas.OtherSchema) else "damaged"
    except entries.Unreadable:
        status = "unreadable"
    return ("?", 0, "", "", "?", "?", "?", status, "", _size(folder), _changed(folder)), False


def _part(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What its spec says: kind, revision, parent, original, and the parts of its name (a pruned one's lie in two)."""
    kind, revision = str(spec["kind"]), int(spec.get("revision", 0))
    if "parent" in spec:
        axes = "-".join([*(Spec.parse(spec[a]).slug for a in _AXES), f"s{per_mille(spec['sparsity'])}"])
        return kind, revision, spec["parent"], spec.get("original", ""), "", axes, ""
    epoch = f"-epoch{spec['epoch']}" if "epoch" in spec else ""
    head = f"{Spec.parse(spec['model']).slug}-{Spec.parse(spec['dataset']).slug}"
    return kind, revision, "", "", head, "none-none-none-none-s000", f"seed{int(spec['seed'])}{epoch}"


def _named(rows: Mapping[str, str]) -> list[Entry]:
    split = {key: row.split("\t") for key, row in rows.items()}
    unknown = ["", "?", "0", "", "", "?", "?", "?"]
    found = []
    for key, (_, kind, revision, parent, original, head, axes, seed, status, accuracy, size, created) in split.items():
        if parent:
            of = split.get(parent, unknown)
            head, seed = of[5], of[7]
        made_from = (parent, original) if original else (parent,) if parent else ()
        measured = float(accuracy) if accuracy else None
        name = f"{head}-{axes}-{seed}" if axes != "?" else "?"
        found.append(
            Entry(key, name, kind, status, measured, int(size), float(created), int(revision), made_from)
        )  # fmt: skip
    found.sort(key=lambda e: e[1])
    return found


def _read_index(root: Path) -> dict[str, str]:
    """{key: row} of the index; empty where there is none or it isn't what was written."""
    try:
        content = (root / INDEX).read_bytes()
        head, _, body = content.partition(b"\n")
        told = json.loads(head)
        if told["schema"] != INDEX_SCHEMA or told["digest"] != hashlib.sha256(body).hexdigest():
            return {}
        return {line[:32]: line[33:] for line in body.decode().split("\n") if line}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_index(root: Path, rows: Mapping[str, str]) -> None:
    body = "\n".join(f"{key}\t{row}" for key, row in rows.items()).encode()
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
