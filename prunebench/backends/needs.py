"""What the backends of this package need beyond torch, found out without importing any of it, torch included."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from prunebench.engine import available
from prunebench.spec import Spec


@dataclass(frozen=True)
class Extra:
    """Packages that an extra installs, the runtime's own last."""

    name: str
    packages: tuple[str, ...]


_JAX = Extra("jax", ("jax",))
EXTRAS = {
    "jax": _JAX,
    "jax_bcsr": _JAX,
    "onnxruntime": Extra("onnxruntime", ("onnx", "onnxruntime")),
    "openvino": Extra("openvino", ("openvino",)),
    "tensorflow": Extra("tensorflow", ("tensorflow",)),
}
# Everything else that this package offers needs torch alone.
BUILT_IN = ("compact", "csr", "dense", "masked", "scipy_csr", "torch_compile", "torch_csr", "torch_jit", *EXTRAS)


def missing(backend: str) -> str | None:
    """Why one of BUILT_IN can't run here, in one line with the remedy; None where it can."""
    if backend == "csr":
        return available()
    if backend == "torch_compile":
        return _no_compiler()
    if backend not in EXTRAS:
        return None
    extra = EXTRAS[backend]
    absent = [package for package in extra.packages if not _installed(package)]
    return f"{' and '.join(absent)} not installed; pip install 'prunebench[{extra.name}]'" if absent else None


def version(backend: str) -> str | None:
    """The version of the runtime behind a backend spec; None where it is torch or none."""
    extra = EXTRAS.get(Spec.parse(backend).name)
    if extra is None:
        return None
    for package in (extra.packages[-1], f"{extra.packages[-1]}-cpu"):  # a runtime may come under another wheel's name
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that somebody made by hand has no spec
        return package in sys.modules


def _no_compiler() -> str | None:
    # Inductor writes C++ for a CPU.
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler.split()[0]) else f"no C++ compiler found: {compiler!r} is not on the PATH"
