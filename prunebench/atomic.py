"""Writing a file whole or not at all: a temporary file beside it, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from prunebench.errors import UsageError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content; UsageError in one line where it can't be written."""
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"can't write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def check_folder(path: Path) -> None:
    """UsageError unless the folder, or the nearest one above it, can be written into; makes nothing."""
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it is read-only")
        # Asked by doing: some file systems grant access and then refuse.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"can't write into {folder}: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Make a folder that files can be written into; UsageError in one line where that can't be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        raise UsageError(f"can't write into {path}: {getattr(error, 'strerror', None) or error}") from error


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by UTF-8 text; UsageError as above."""
    write_bytes(path, text.encode())
