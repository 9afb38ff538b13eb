"""Datasets by name: one file a source, registered through entry points, held in memory as uint8 tensors.

A dataset plugin is `f(root, *values, **params) -> Dataset`, where root is the folder that `--data` names.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.registry import get
from prunebench.spec import Spec

if TYPE_CHECKING:
    from prunebench.datasets.base import Dataset

__all__ = ["content_id", "load"]


def load(text: str, root: str | Path | None = None) -> Dataset:
    """The dataset that a spec string names; raises UsageError or DatasetMissing, each saying what to do."""
    plugin, spec = get("datasets", text)
    return plugin.bind(spec)(Path(root) if root is not None else Path(".prunebench/data"), *spec.args)


def content_id(text: str) -> str | None:
    """None for a dataset known by name alone; for one at a path, a hash of its files' names, sizes and times."""
    spec = Spec.parse(text)
    if not spec.args:
        return None
    path = Path(str(spec.args[0]))
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        if file.exists():
            state = file.stat()
            found.update(f"{file.relative_to(path)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return found.hexdigest()[:16]
