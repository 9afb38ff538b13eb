"""What identifies the native engine's build: timings of different builds are never mixed in one column."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from prunebench.engine.native_loader import available


def build_info() -> dict[str, Any]:
    """{"isa": …, "build": hash of the C sources} of the loaded engine; {"off": reason} where it isn't built."""
    reason = available()
    if reason is not None:
        return {"off": reason}
    from prunebench.engine import _native
    from prunebench.engine.product import isa

    return {"isa": isa(), "build": getattr(_native, "BUILD", "")}


def sources_build() -> str | None:
    """The build that the C sources beside this file would give, as setup.py names it; None where they aren't there."""
    sources = sorted((Path(__file__).parent / "native").glob("*.[ch]"))
    if not any(path.suffix == ".c" for path in sources):
        return None
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
