"""What a process and its children hold in memory, what the machine has left, and whom the kernel killed for it.

Read from /proc, because the limits a process can be given bound address space, and torch maps five times what it
touches. Everything is None where the system has no /proc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HELD = re.compile(rb"^Vm(?:RSS|Swap):\s+(\d+) kB", re.MULTILINE)
# (limit, usage) of the group of processes that this one is in: version 2, version 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def held_bytes(process: int) -> int | None:
    """Bytes in memory or swapped out of a process and all that descend from it; None where the system doesn't tell."""
    found = None
    for one in _family(process):
        with suppress(OSError):
            kilobytes = _HELD.findall(Path(f"/proc/{one}/status").read_bytes())
            found = (found or 0) + 1024 * sum(map(int, kilobytes))
    return found


def _family(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):  # it may end while it is looked at
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from _family(int(child))


def available_bytes() -> int | None:
    """Bytes that can be had without swapping, by the machine and by the group of processes that this one is in."""
    try:
        (kilobytes,) = re.findall(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    found = 1024 * int(kilobytes)
    for limit, usage in _GROUPS:
        with suppress(OSError, ValueError):  # "max" is no number
            found = min(found, max(0, int(Path(limit).read_text()) - int(Path(usage).read_text())))
    return found


def kernel_kills() -> int:
    """How many processes the kernel killed for lack of memory since it started; 0 where it doesn't tell."""
    try:
        (count,) = re.findall(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return 0
    return int(count)


def killed_first() -> None:
    """Let the kernel, where memory runs out, kill this process before any other."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
