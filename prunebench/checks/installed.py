"""Checks of the installation: packages and extras, the engine, and every plugin."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import prunebench
from prunebench import backends, registry
from prunebench.checks.check import BROKEN, OFF, OK, WARNING, Check
from prunebench.engine.build_info import build_info, sources_build
from prunebench.errors import PrunebenchError, reason

_AGAIN = "install again: pip install -e . in a checkout, else pip install --force-reinstall --no-deps prunebench"


def packages() -> Iterator[Check]:
    """What pyproject.toml asks for: needed packages, then extras; then whether torch and torchvision fit together."""
    from packaging.requirements import Requirement

    try:
        about = metadata.metadata("prunebench")
    except metadata.PackageNotFoundError:
        yield Check("package", "prunebench", BROKEN, "not installed: no plugin has a name", "pip install prunebench")
        return
    asked = [Requirement(text) for text in metadata.requires("prunebench") or ()]
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    lacking = [(one, why) for one in needed if (why := _lacks(one))]
    for one, why in lacking:
        yield Check("package", one.name, BROKEN, why, f"pip install '{one.name}{one.specifier}'")
    if not lacking:
        yield Check("package", "needed", OK, f"all {len(needed)} there")
    yield from _importable()
    for extra in about.get_all("Provides-Extra") or []:
        own = [one for one in asked if one.marker and one.marker.evaluate({"extra": extra}) and one not in needed]
        missing = [one.name for one in own if _lacks(one)]
        found = f"without {', '.join(missing)}" if missing else "there"
        remedy = f"pip install 'prunebench[{extra}]'" if missing else ""
        yield Check("extra", extra, OFF if missing else OK, found, remedy)
    if about["Version"] != prunebench.__version__:
        found = f"installed as {about['Version']}, the code says {prunebench.__version__}"
        yield Check("package", "version", WARNING, found, _AGAIN)


def _lacks(requirement: object) -> str | None:
    name, specifier = requirement.name, requirement.specifier  # type: ignore[attr-defined]
    try:
        have = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    return None if specifier.contains(have, prereleases=True) else f"{have}, but {specifier} is needed"


def _importable() -> Iterator[Check]:
    """A torch and a torchvision that don't belong together are installed happily and fail when imported."""
    for name in ("torch", "torchvision"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises anything
            remedy = "pip install --force-reinstall torch torchvision, both from one index"
            yield Check("package", name, BROKEN, f"can't be imported: {reason(error)[:200]}", remedy)


def engine() -> Iterator[Check]:
    """The csr engine: there, of these sources, and right on a small product."""
    about = build_info()
    if "off" in about:
        from prunebench.engine.native_loader import REMEDY

        yield Check("csr engine", "build", WARNING, f"off: {about['off']}", REMEDY)
        return
    wrong = _self_test()
    if wrong:
        yield Check("csr engine", "kernels", BROKEN, f"{about['isa']}: {wrong}", "PRUNEBENCH_ISA=scalar, and report it")
    else:
        yield Check("csr engine", "kernels", OK, str(about["isa"]))
    here = sources_build()
    if here is not None and about["build"] != here:
        found = f"built from other C sources ({about['build']}, these are {here}): timings would be of the old ones"
        yield Check("csr engine", "build", WARNING, found, _AGAIN)


def _self_test() -> str | None:
    """What is wrong with a product of the engine, or None; the reference is numpy's in float64."""
    import numpy as np
    from scipy import sparse

    from prunebench.kernels import csr_matmul

    rng = np.random.default_rng(0)
    matrix = sparse.random(70, 50, density=0.1, format="csr", dtype=np.float32, random_state=0)
    dense = rng.standard_normal((50, 33), dtype=np.float32)
    try:
        got = csr_matmul(matrix.indptr, matrix.indices, matrix.data, matrix.shape, dense)
    except Exception as error:  # whatever it is, it is what the doctor is asked about
        return f"a product failed: {reason(error)}"
    exact = matrix.astype(np.float64) @ dense.astype(np.float64)
    off = float(np.abs(got - exact).max() / np.abs(exact).max())
    return None if off < 1e-5 else f"a product is off by {off:.1e}"


def plugins() -> Iterator[Check]:
    """Every backend, then every other plugin that can't be loaded, then names that the installation doesn't know."""
    for name in registry.names("backends"):
        try:
            why = backends.unavailable(name)
        except PrunebenchError as error:
            why = str(error)
        found, _, remedy = (why or "ready").partition("; ")
        yield Check("backend", name, OFF if why else OK, f"off: {found}" if why else found, remedy)
    loaded = 0
    for group, kind in registry.GROUPS.items():
        for name in registry.names(group):
            try:
                registry.get(group, name)
                loaded += 1
            except PrunebenchError as error:
                remedy = "uninstall or mend the package that brings it"
                yield Check("plugin", name, WARNING, f"{kind} can't be loaded: {error}", remedy)
    yield Check("plugin", "loaded", OK, f"{loaded} names in {len(registry.GROUPS)} groups")
    yield from _unknown()


def _unknown() -> Iterator[Check]:
    """Entry points are read at installation: a checkout that got more since then doesn't know them."""
    project = Path(prunebench.__file__).parent.parent / "pyproject.toml"
    if sys.version_info < (3, 11) or not project.is_file():
        return
    import tomllib

    written = tomllib.loads(project.read_text()).get("project", {}).get("entry-points", {})
    for group in registry.GROUPS:
        lost = sorted(set(written.get(f"prunebench.{group}", {})) - set(registry.names(group)))
        if lost:
            yield Check("plugin", group, WARNING, f"unknown to this installation: {', '.join(lost)}", _AGAIN)
