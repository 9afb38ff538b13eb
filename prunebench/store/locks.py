"""Who may do what while others use the same store: the operating system's locks, which no kill leaves behind.

A file with a process's number would lie after a kill, a reboot or on another host. Where the file system has no such
locks everything goes on without: two processes may then train one cell, and the first to publish it wins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunebench.errors import PrunebenchError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

POLL_SECONDS = 0.05


class Busy(PrunebenchError):
    """Another process is at it; the message names what."""


@contextmanager
def publishing(root: Path) -> Iterator[None]:
    """While it lasts nobody cleans the store up; any number of processes may publish at once."""
    handle = os.open(root, os.O_RDONLY)
    try:
        _lock(handle, exclusive=False, seconds=None)
        yield
    finally:
        _let_go(handle)


@contextmanager
def alone(root: Path, seconds: float = 30.0) -> Iterator[bool]:
    """While it lasts nobody publishes: whatever looks half written was left by a kill.

    Yields False where the file system has no locks. Raises Busy where others don't stop publishing for `seconds`.
    """
    handle = os.open(root, os.O_RDONLY)
    try:
        got = _lock(handle, exclusive=True, seconds=seconds)
        if got is False:
            raise Busy(f"the store at {root} has been written to for {seconds:.0f} s on end; try again later")
        yield got is True
    finally:
        _let_go(handle)


@contextmanager
def only_one(path: Path, wait: bool = True) -> Iterator[None]:
    """While it lasts no other process gets past here with the same path, a lock file that goes with its holder.

    Raises Busy where another holds it and `wait` is False.
    """
    handle = _taken(path, wait)
    try:
        yield
    finally:
        # Removed before it is let go: whoever waits for this file looks whether it is still the one of that name.
        with suppress(OSError):
            path.unlink()
        _let_go(handle)


def held(path: Path) -> bool:
    """True where a live process holds a lock file; changes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _lock(handle, exclusive=False, seconds=0.0) is False
    finally:
        _let_go(handle)


def _taken(path: Path, wait: bool) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(handle, exclusive=True, seconds=None if wait else 0.0) is False:
                raise Busy(f"another process holds {path}")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
        except BaseException:
            _let_go(handle)
            raise
        os.close(handle)  # the holder before removed it between our opening and locking it


def _let_go(handle: int) -> None:
    # The lock goes even where closing reports an error, as NFS may; nothing was written that could be lost.
    with suppress(OSError):
        os.close(handle)


def _lock(handle: int, exclusive: bool, seconds: float | None) -> bool | None:
    """True: locked; False: others hold it longer than `seconds` (None: wait for ever); None: no locks here."""
    if fcntl is None:
        return None
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, kind if deadline is None else kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            assert deadline is not None
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        except OSError:
            return None
