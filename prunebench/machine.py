"""The machine as a value: what a timing depends on, a short id for it, and thread counts held for a while."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("prunebench", "torch", "torchvision", "numpy", "scipy", "pandas", "pytest", "pytest-benchmark")


_most_cores: int | None = None


def cores() -> int:
    """CPUs this process may run on."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return there if _most_cores is None else min(there, _most_cores)


def limit_cores(count: int | None) -> None:
    """Have this process take no more than `count` CPUs, because others share them; None lifts it."""
    global _most_cores
    _most_cores = count


@cache
def cpu_name() -> str:
    """The CPU's brand string with its family and model, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text.split("\n\n")[0], re.MULTILINE))
    if "model name" not in fields:
        return platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def memory_bytes() -> int | None:
    """Physical memory, or None where the system doesn't tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(engine: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything that a timing column must have in common; `id` is a hash of it. No host name, no paths."""
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": cores(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "engine": engine or {},
        "versions": {k: v for k, v in versions().items() if k in ("python", "torch", "scipy", "numpy", "prunebench")},
    }
    return {"id": identity(facts), **facts, "memory_bytes": memory_bytes()}


_ENGINE = ("isa", "build")
_DEPENDS_ON = ("cpu", "cores", "architecture", "system", "engine", "versions")


def identity(about: Mapping[str, Any], *also: str) -> str:
    """The id of a machine as a saved run describes it: a hash of all that a timing depends on, and of more words."""
    # A file may hold their names in another order, which says nothing: they are hashed in the one they are made in.
    order = [*_ENGINE, "python", *_PACKAGES]
    inner = {name: dict(about.get(name) or {}) for name in ("engine", "versions")}
    inner = {
        name: dict(sorted(own.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))
        for name, own in inner.items()
    }
    facts = {**about, **inner}
    text = repr(sorted((k, str(facts[k])) for k in _DEPENDS_ON if k in facts)) + "".join(also)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


_found: tuple[int, Any] = (0, None)


def _pools() -> Any:
    """The thread pools of the libraries loaded; looking for them takes 4 ms, so only after modules came."""
    global _found
    from threadpoolctl import ThreadpoolController

    if _found[0] != len(sys.modules):
        _found = (len(sys.modules), ThreadpoolController())
    return _found[1]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Hold torch and the BLAS and OpenMP pools at `count` threads, then restore what was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with _pools().limit(limits=count):
            yield
    finally:
        torch.set_num_threads(before)
