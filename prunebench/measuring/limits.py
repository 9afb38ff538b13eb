"""What a case may take when it is measured in a process of its own: memory, and seconds without a sign of life."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from prunebench.errors import UsageError
from prunebench.measuring.resident import available_bytes

HELP = "measure each case, its training included, in a process of its own; what it breaks costs that case alone"
MEMORY_HELP = "bytes that such a process may hold, for example 4GB; default 80 %% of what is free; implies --isolate"
SECONDS_HELP = (
    "seconds after which such a process counts as hanging; each epoch trained starts them anew; default 1800; "
    "implies --isolate"
)
SECONDS = 1800.0
_SHARE = 0.8  # of the memory that is free: what is left keeps the machine, and the other processes, alive
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


@dataclass(frozen=True)
class Limits:
    """memory: bytes that a process and its children may hold, None for no limit; seconds until it counts as hanging."""

    memory: int | None
    seconds: float

    def __str__(self) -> str:
        memory = "no limit of memory" if self.memory is None else f"at most {self.memory / 1e9:.3g} GB of memory"
        return f"{memory}, {self.seconds:g} s"


def add_to(options: Any) -> None:
    """Add the options to a command's parser."""
    options.add_argument("--isolate", action="store_true", help=HELP)
    options.add_argument("--isolate-memory", metavar="SIZE", help=MEMORY_HELP)
    options.add_argument("--isolate-seconds", metavar="N", help=SECONDS_HELP)


def limits_of(isolate: bool, memory: str | None, seconds: str | None) -> Limits | None:
    """The limits that the options ask for, None without isolation; raises UsageError."""
    if not isolate and memory is None and seconds is None:
        return None
    return Limits(_bytes(memory), SECONDS if seconds is None else _seconds(seconds))


def _bytes(text: str | None) -> int | None:
    free = available_bytes()
    if text is None:
        return None if free is None else int(_SHARE * free)
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]I?|)B?", text.strip().upper())
    if not found or float(found[1]) == 0:
        raise UsageError(f"--isolate-memory {text!r} can't be used; give bytes such as 4GB, 512MB or 2GiB")
    if free is None:
        raise UsageError("--isolate-memory needs a system with /proc; leave it out, and the time limit stays")
    return int(float(found[1]) * _UNITS[found[2]])


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise UsageError(f"--isolate-seconds {text!r} can't be used; give seconds above 0, for example 600")
    return found
