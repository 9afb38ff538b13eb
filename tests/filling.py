"""Stores with many small entries, made without training or syncing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from prunebench.cell import digest
from prunebench.store import Store, entries, schemas

DENSE = {"kind": "dense", "revision": 1, "dataset": "mnist", "model": "lenet5", "seed": 3, "recipe": {"epochs": 1}}
DAY = 86400.0


def pruned(parent: str, sparsity: float, **changes) -> dict:
    axes = {"criterion": "l1", "granularity": "weight", "scope": "global", "schedule": "agp"}
    return {"kind": "pruned", "revision": 1, "parent": parent, **axes, "sparsity": sparsity, **changes}


def add(store: Store, spec: dict, created: float, status: str = "ok", accuracy: float | None = 0.5) -> str:
    """An entry as `Store.put` writes it, made at a time (seconds since 1970); returns its key."""
    key, content = digest(spec), b"weights of " + digest(spec).encode()
    meta = {"schema": schemas.SCHEMA, "key": key, "spec": spec, "created": schemas.moment(created), "status": status,
            "validation_accuracy": accuracy, "digest": hashlib.sha256(content).hexdigest()}  # fmt: skip
    folder = store.path(key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / entries.WEIGHTS).write_bytes(content)
    (folder / entries.META).write_text(json.dumps({**meta, "record": entries.record_of(meta)}, indent=1))
    return key


def fill(store: Store, number: int, created: float) -> list[str]:
    """A dense entry and pruned ones of it."""
    parent = add(store, DENSE, created)
    return [parent, *(add(store, pruned(parent, n / number), created) for n in range(1, number))]


def age(path: Path, seconds: float, now: float) -> None:
    """Set a file's time to so many seconds ago; below 0 for the future."""
    os.utime(path, (now - seconds, now - seconds))
