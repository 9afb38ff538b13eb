"""Looks into an sdist and a wheel: what must be in them is, and what mustn't isn't."""

from __future__ import annotations

import sys
import tarfile
import zipfile

SOURCE = (
    "pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "conftest.py",
    "prunebench/py.typed", "prunebench/profiles.toml", "prunebench/engine/native/binding.c",
    "prunebench/engine/native/kernel_template.h",
    "prunebench/formats/native/decode.c", "prunebench/formats/native/checks.h",
    "prunebench/report/page.html", "tests/conftest.py", "benchmarks/test_grid.py", "docs/index.md",
)  # fmt: skip
WHEEL = (
    "prunebench/py.typed", "prunebench/profiles.toml", "prunebench/claims.toml", "prunebench/report/page.html",
    "prunebench/report/script.js", "prunebench/report/style.css", "prunebench/checks/__init__.py",
)  # fmt: skip


def main(sdist: str, wheel: str) -> None:
    """Exit with a line that names what is missing or too much."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in SOURCE if name not in inside]
    surplus = [name for name in inside if name.endswith((".so", ".pyc")) or name.startswith((".venv", ".prunebench"))]
    with zipfile.ZipFile(wheel) as archive:
        built = set(archive.namelist())
    missing += [name for name in WHEEL if name not in built]
    for extension in ("prunebench/engine/_native.", "prunebench/formats/_decode."):
        if not any(name.startswith(extension) and not name.endswith(".pyi") for name in built):
            missing.append(f"{extension}*: it was not built")
    surplus += [
        name for name in built if not name.startswith(("prunebench/", "prunebench-")) or name.endswith((".c", ".h"))
    ]
    if missing or surplus:
        sys.exit(f"package: missing {missing}, too much {surplus}")


if __name__ == "__main__":
    main(*sys.argv[1:])
