"""What `prunebench doctor` looks at: each check says what it found, how it is, and what to do where it isn't well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunebench.checks.check import BROKEN, OFF, OK, WARNING, Check, worst
from prunebench.checks.installed import engine, packages, plugins
from prunebench.checks.machine import machine_checks
from prunebench.checks.places import data, saved_runs, store

__all__ = ["BROKEN", "OFF", "OK", "WARNING", "Check", "examine", "worst"]


def examine(store_folder: Path, data_folder: Path, results_folder: Path) -> Sequence[Check]:
    """Every check, in the order they are told; takes seconds (torch is imported) and writes nothing."""
    return [
        *machine_checks(),
        *packages(),
        *engine(),
        *plugins(),
        *store(store_folder),
        *data(data_folder),
        *saved_runs(results_folder),
    ]
