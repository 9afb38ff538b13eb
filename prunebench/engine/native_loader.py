"""Finds the C extension, or the reason why it isn't there, and lets PRUNEBENCH_ISA force its kernels."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from types import ModuleType

from prunebench.errors import BackendUnavailable, UsageError

NOTE = Path(__file__).with_name("native_off.txt")
REMEDY = "install a C compiler and run 'pip install -e .' again"
KNOWN = ("avx512", "avx2", "neon", "scalar")


@cache
def _load() -> ModuleType | str:
    """The extension module, or the one-line reason why it can't be imported."""
    try:
        return importlib.import_module("prunebench.engine._native")
    except ImportError as error:
        try:
            lines = NOTE.read_text().strip().splitlines()
        except OSError:
            lines = []
        # The place, because an installed copy may well be built: a checkout's own package goes before it in its pytest.
        why = f"the native engine was not built in {NOTE.parents[1]}; run 'pip install -e .' beside that folder"
        return lines[0] if lines else f"{why} ({' '.join(str(error).split())})"


def available() -> str | None:
    """None when the native engine is there, else the one-line reason. Imports no torch."""
    found = _load()
    return found if isinstance(found, str) else None


@cache
def _forced(name: str) -> None:
    """Switches to the kernels that PRUNEBENCH_ISA names; UsageError when unknown or not on this CPU."""
    module = _load()
    assert isinstance(module, ModuleType)
    can = module.isas()
    if name not in can:
        what = "isn't supported by this CPU" if name in KNOWN else "is unknown"
        raise UsageError(
            f"PRUNEBENCH_ISA={name!r} {what}; known: {', '.join(KNOWN)}; this CPU runs: {', '.join(can)}; "
            "unset PRUNEBENCH_ISA to use the best"
        )
    module.use(name)


def native() -> ModuleType:
    """The extension module; BackendUnavailable with reason and remedy when it isn't there."""
    found = _load()
    if isinstance(found, str):
        raise BackendUnavailable(f"the native engine is off: {found}; {REMEDY}")
    name = os.environ.get("PRUNEBENCH_ISA")
    if name:
        _forced(name)
    return found
