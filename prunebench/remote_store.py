"""A store at a URL that fsspec can open (`s3://bucket/store`, `gs://…`, `file://…`), mirrored in a local folder.

What is made is published here first, then there; what is missing here is fetched and checked before anything is
trained. Both are content-addressed, so the first writer wins. There, weights are named by their digest and the record
comes last: two writers of one key can't mix their files, whatever the service promises about order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, reason, unknown
from prunebench.store import Artifact, Store, StoreError, entries


def open_store(place: str) -> Store:
    """The store at a folder or a URL; UsageError where the URL can't be opened here."""
    return MirroredStore(place) if "://" in place else Store(place)


def mirror_folder(url: str) -> Path:
    """Where a URL is mirrored on this machine: one folder each under the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "prunebench" / "mirrors" / hashlib.sha256(url.encode()).hexdigest()[:16]


class MirroredStore(Store):
    """A store whose entries also lie at a URL; `root` is the local mirror, whose loss costs only time."""

    def __init__(self, url: str, mirror: str | os.PathLike[str] | None = None) -> None:
        super().__init__(mirror_folder(url) if mirror is None else mirror)
        self.url = url
        self._files, self._base = _opened(url)
        self._there: set[str] = set()  # keys known to lie at the URL
        self._agreed: set[str] = set()  # keys of which the mirror holds what lies there
        self._damaged: set[str] = set()  # keys whose entry there didn't pass its check

    @property
    def place(self) -> str:
        return self.url

    def __contains__(self, key: str) -> bool:
        # The URL decides: an entry that lies only here is no use to other machines. `get` publishes it.
        if key not in self._there and key not in self._damaged and self._record(key) is not None:
            self._there.add(key)
        return key in self._there

    def peek(self, key: str) -> Mapping[str, Any] | None:
        here = super().peek(key) if key in self else None
        record = self._record(key) if here is None and key in self else None
        return here if record is None else _checked(record, key)

    def get(self, key: str) -> Artifact | None:
        """The entry, from here or else from there; what was published only here is published there as well."""
        found = super().get(key)
        if found is None:
            return self._fetched(key)
        if key not in self._agreed:
            # A URL that can't be reached, or only be read: what is here still serves.
            with contextlib.suppress(StoreError):
                return self._agree(key, found)
        return found

    def put(
        self, key: str, spec: Mapping[str, Any], meta: Mapping[str, Any], state: Mapping[str, Any] | None
    ) -> Artifact:
        return self._agree(key, super().put(key, spec, meta, state))

    def _agree(self, key: str, here: Artifact) -> Artifact:
        """Publish what is here, or take what another machine published first: all others start from that."""
        record = (self.path(key) / "meta.json").read_bytes()
        there = None if key in self._damaged else self._record(key)
        if there is None and not self._publish(key, record, here.meta["digest"]):
            there = self._record(key)
        if there is not None and there != record:
            self._drop(key)
            first = self._fetched(key)
            if first is not None:
                here = first
            else:
                here = super().put(key, here.meta["spec"], here.meta, here.state)
                self._publish(key, (self.path(key) / "meta.json").read_bytes(), here.meta["digest"])
        self._there.add(key)
        self._agreed.add(key)
        return here

    def _publish(self, key: str, record: bytes, digest: str | None) -> bool:
        """Upload an entry; False where another machine was faster."""
        overwrite = key in self._damaged
        if digest is not None:
            self._upload(self._weights_there(key, digest), (self.path(key) / "weights.safetensors").read_bytes(), True)
        written = self._upload(self._record_there(key), record, overwrite)
        self._damaged.discard(key)
        return written

    def _drop(self, key: str) -> None:
        # Renamed first: a reader must not find half of it.
        aside = self.root / f".dropped-{key}-{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):
            self.path(key).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _upload(self, path: str, content: bytes, overwrite: bool) -> bool:
        files = self._files
        try:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            if "file" in _protocols(files):
                # A plain file grows as it is written; readers must never see half of it.
                part = f"{path}.{uuid.uuid4().hex}.part"
                files.pipe_file(part, content)
                files.mv(part, path)
                return True
            files.pipe_file(path, content, mode="overwrite" if overwrite else "create")
        except FileExistsError:
            return False
        except Exception as error:
            raise self._failed("write", path, error) from error
        return True

    def _fetched(self, key: str) -> Artifact | None:
        record = None if key in self._damaged else self._record(key)
        if record is None:
            return None
        meta = _checked(record, key)
        weights = None
        if meta is not None and meta["digest"] is not None:
            weights = self._read(self._weights_there(key, meta["digest"]))
        if meta is not None and (weights is not None or meta["digest"] is None):
            self._place(key, record, weights)
            found = super().get(key)  # which checks both digests
            if found is not None:
                self._agreed.add(key)
                return found
        else:
            self.set_aside += 1
        self._there.discard(key)
        self._damaged.add(key)
        return None

    def _place(self, key: str, record: bytes, weights: bytes | None) -> None:
        place = self.path(key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
            try:
                if weights is not None:
                    (temporary / "weights.safetensors").write_bytes(weights)
                (temporary / "meta.json").write_bytes(record)
                if not place.exists():
                    temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            if place.exists():  # another process fetched it meanwhile
                return
            raise StoreError(
                f"can't write the mirror of {self.url} at {self.root}: {error.strerror or error}; "
                "free space, or set XDG_CACHE_HOME to a folder elsewhere"
            ) from error

    def _record(self, key: str) -> bytes | None:
        return self._read(self._record_there(key))

    def _read(self, path: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed("read", path, error) from error
        return content

    def _record_there(self, key: str) -> str:
        return f"{self._base}/artifacts/{key[:2]}/{key}/meta.json"

    def _weights_there(self, key: str, digest: str) -> str:
        return f"{self._base}/artifacts/{key[:2]}/{key}/{digest}.safetensors"

    def _failed(self, verb: str, path: str, error: Exception) -> StoreError:
        return StoreError(
            f"can't {verb} {path} in the store at {self.url} ({reason(error)}); check the address and who may use it, "
            "or name a folder with --store DIR"
        )


def _checked(record: bytes, key: str) -> Mapping[str, Any] | None:
    try:
        return entries.meta_of(record, 0.0, key, f"the entry {key}")
    except entries.Damaged:
        return None


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _opened(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"the store {url} is a URL, which needs fsspec; pip install 'prunebench[remote]'") from None
    try:
        # Listings kept by fsspec would hide what other machines publish.
        files, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise UsageError(f"the store {url} can't be opened: {' '.join(str(error).split())}") from None
    except ValueError:
        protocol = url.partition("://")[0]
        raise unknown("kind of store", f"{protocol}://", ["file", "s3", "gs", "abfs", "memory"]) from None
    return files, str(base).rstrip("/")
