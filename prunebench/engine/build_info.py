"""What identifies the native engine's build: timings of different builds are never mixed in one column."""

from __future__ import annotations

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
