"""One thing looked at: what was found, how it is, and the remedy where it isn't well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK = "ok"
OFF = "off"  # not there and not needed; the remedy says how to have it
WARNING = "warning"  # works, but less than it could, or less surely
BROKEN = "broken"  # needed, and doesn't work
_ORDER = (OK, OFF, WARNING, BROKEN)


@dataclass(frozen=True)
class Check:
    """topic: what it is about, one word; found: one line; remedy: what to do, empty where all is well."""

    topic: str
    name: str
    status: str
    found: str
    remedy: str = ""


def worst(checks: Iterable[Check]) -> str:
    """The worst status among them."""
    return max((check.status for check in checks), key=_ORDER.index, default=OK)
