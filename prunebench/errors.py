"""The errors that a user can meet, each one line: what was wrong, what is known, what to do."""

from __future__ import annotations

from collections.abc import Iterable

from prunebench.untrusted import short_line


class PrunebenchError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class UsageError(PrunebenchError, ValueError):
    """A value the caller gave can't be used; the message names it, the known values and the remedy."""


class PluginError(PrunebenchError, RuntimeError):
    """A plugin raised or returned something it must not; the message names plugin and layer."""


class BackendUnavailable(PrunebenchError, RuntimeError):
    """A backend can't run here (not built, not installed); the message says why and the remedy."""


class DatasetMissing(PrunebenchError, FileNotFoundError):
    """A dataset is neither on disk nor downloadable; the message says where it was looked for."""


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UsageError:
    """A UsageError that names the unknown value, the known ones and, where given, the remedy."""
    tail = f"; {remedy}" if remedy else ""
    return UsageError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}{tail}")


def reason(error: BaseException) -> str:
    """What an error says, in one plain line of bounded length: its type and its words."""
    return f"{type(error).__name__}: {short_line(error)}".removesuffix(": ")
