"""Reading what somebody else may have written: regular files of bounded size, bounded JSON, and text as one plain line.

Everything that is read from a file and isn't Python goes through here; SECURITY.md says what is trusted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from typing import Any

MOST_BYTES = 1 << 30  # of a saved run: a hundred thousand cases with every round of their history
MOST_WORDS = 1000  # characters of what is told of an error: a plugin's may be megabytes
MOST_DEPTH = 64  # of JSON: a saved run has 7
# Beside control characters: what hides text, or turns its direction so that a reader sees another one (UTS #55).
_HIDDEN = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
# Cc: control codes; Cs: half a surrogate pair, which can't be written as UTF-8.
_STRANGE = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_HIDDEN}]")


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """A regular file's content. OSError: it can't be read. ValueError: no regular file, or more than `most` bytes."""
    # Not blocking: a named pipe that nobody writes to would be waited for without end.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return file.read(found.st_size)  # what is appended meanwhile is for the next reader


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """The same as UTF-8 text; ValueError also where it is none."""
    return read_bytes(path, most).decode()


def parse_json(text: str | bytes, unique: bool = False) -> Any:
    """JSON as Python values. ValueError: it is none, is nested too deeply, or (`unique`) says a key twice."""
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    inner: list[Any] = [[value]]
    for _ in range(MOST_DEPTH + 1):  # what is read later walks through it by recursion
        inner = [
            v for held in inner for v in (held.values() if type(held) is dict else held) if type(v) in (dict, list)
        ]
        if not inner:
            return value
    raise ValueError("it is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it says {name!r} twice")
    return found


def plain_line(text: object) -> str:
    """Text in one line that does nothing to a terminal or a page: no escape codes, line ends, or turned directions."""
    return _STRANGE.sub("\ufffd", " ".join(str(text).split()))


def short_line(text: object, most: int = MOST_WORDS) -> str:
    """The same, cut where it is longer; a text that raises when it is asked for is left out."""
    try:
        line = plain_line(text)
    except Exception:  # an exception's own __str__, which a plugin wrote
        line = f"(no words: its {type(text).__name__} can't be shown)"
    return line if len(line) <= most else f"{line[: most - 1]}…"


def is_plain(text: str) -> bool:
    """Whether text holds none of those characters; more than one blank in a row is fine."""
    return not _STRANGE.search(text)
