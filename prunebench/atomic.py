"""Writing a file whole or not at all: a temporary file beside it, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunebench.errors import UsageError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content; UsageError in one line where it can't be written."""
    path = Path(path)
    with _written(path, content) as temporary:
        os.replace(temporary, path)


def create_bytes(path: Path, content: bytes) -> bool:
    """Write a new file; False where one of that name is there already. UsageError as above."""
    path = Path(path)
    try:
        with _written(path, content) as temporary:
            _link(temporary, path)
    except FileExistsError:
        return False
    return True


def _link(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.rename(temporary, path)


@contextlib.contextmanager
def _written(path: Path, content: bytes) -> Iterator[str]:
    """A synced temporary file beside `path`, which the caller gives its name; FileExistsError passes."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 is for secrets
        yield temporary
        with contextlib.suppress(OSError):  # a folder that can't be synced: the content is whole either way
            _sync(path.parent)
    except FileExistsError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"can't write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def check_folder(path: Path, spare: int = 0) -> None:
    """UsageError unless the folder, or the nearest one above it, can be written into; makes nothing.

    spare: bytes that must be free there.
    """
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it is read-only")
        # Asked by doing: some file systems grant access and then refuse.
        with tempfile.TemporaryFile(dir=folder):
            pass
        if shutil.disk_usage(folder).free < spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
