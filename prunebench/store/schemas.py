"""The format of an entry's metadata, an integer in every meta.json: older ones are read as if they were of today.

Nothing on disk is rewritten. A newer one is refused and left alone: it is not damaged, its reader is too old.
1: the first. 2: with its own key, so that an entry under another's name is noticed, and the time it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from prunebench.cell import digest
from prunebench.errors import UsageError

SCHEMA = 2


class OtherSchema(UsageError):
    """An entry of a format that this version doesn't read; the message says what to do."""


def check(schema: Any, what: str) -> int:
    """The schema of what is named; OtherSchema for a newer one, ValueError where it is none."""
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise ValueError(f"its schema is {schema!r}")
    if schema > SCHEMA:
        raise OtherSchema(
            f"{what} has schema {schema}, this version reads up to {SCHEMA}: use the newer prunebench that wrote it, "
            "or another store with --store DIR"
        )
    return schema


def up_to_date(meta: Mapping[str, Any], changed: float) -> dict[str, Any]:
    """Checked metadata as of today's schema. changed: when the file was, in seconds since 1970."""
    found = dict(meta)
    while found["schema"] < SCHEMA:
        found = _STEPS[found["schema"]](found, changed)
    return found


def moment(seconds: float) -> str:
    """A time in seconds since 1970 as it stands in metadata: UTC, ISO 8601."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _from_1(meta: dict[str, Any], changed: float) -> dict[str, Any]:
    return {**meta, "schema": 2, "key": digest(meta["spec"]), "created": moment(changed)}


_STEPS: dict[int, Callable[[dict[str, Any], float], dict[str, Any]]] = {1: _from_1}
