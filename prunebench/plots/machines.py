"""Machines in the words of a footer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunebench.runs import Run


def words(runs: Sequence[Run]) -> dict[str, str]:
    """{machine id: what it is}; runs with one id agree in it, because the id is a hash of it."""
    return {str(run.machine.get("id", "unknown")): _words(run.machine) for run in runs}


def _words(machine: dict[str, Any]) -> str:
    engine, versions = machine.get("engine", {}), machine.get("versions", {})
    parts = [str(machine.get("cpu", "unknown CPU")), f"{machine.get('cores', '?')} cores",
             f"engine {engine.get('isa', 'off')}", f"torch {versions.get('torch', '?')}"]  # fmt: skip
    return " ".join(", ".join(parts).split())
