"""Datasets by name: one file a source, registered through entry points, held in memory as uint8 tensors.

A dataset plugin is `f(root, *values, **params) -> Dataset`, where root is the folder that `--data` names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.registry import get

if TYPE_CHECKING:
    from prunebench.datasets.base import Dataset

__all__ = ["load"]


def load(text: str, root: str | Path | None = None) -> Dataset:
    """The dataset that a spec string names; raises UsageError or DatasetMissing, each saying what to do."""
    plugin, spec = get("datasets", text)
    return plugin.bind(spec)(Path(root) if root is not None else Path(".prunebench/data"), *spec.args)
