"""Checkpoints made to harm: nothing in them runs, nothing huge is made, and each is refused in one plain line."""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch

import prunebench as pb
from prunebench.errors import UsageError
from prunebench.store import Store
from prunebench.untrusted import is_plain

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def file(header, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


def pickled(mark: str) -> bytes:
    return pickle.dumps(Evil(mark))


def zipped(mark: str) -> bytes:
    """What torch.save writes, with a pickle of our own in it."""
    content = io.BytesIO()
    torch.save({"x": torch.zeros(2)}, content)
    changed = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled(mark) if name.endswith("data.pkl") else old.read(name))
    return changed.getvalue()


def behind_a_header(mark: str) -> bytes:
    return file({"__metadata__": {"prunebench": pickled(mark).decode("latin1")}, "a": ONE}, bytes(4)) + pickled(mark)


@pytest.mark.parametrize("make", [pickled, zipped, behind_a_header])
def test_no_pickle_is_run(tmp_path, make):
    mark, path = tmp_path / "mark", tmp_path / "evil.safetensors"
    path.write_bytes(make(str(mark)))
    with pytest.raises(UsageError) as error:
        pb.load(path)
    assert is_plain(str(error.value))
    assert not mark.exists()


def test_the_pickle_would_have_run(tmp_path):
    """Else the test above proves nothing."""
    mark = tmp_path / "mark"
    pickle.loads(pickled(str(mark))).close()
    assert mark.exists()
    mark.unlink()
    torch.load(io.BytesIO(zipped(str(mark))), weights_only=False).close()
    assert mark.exists()


HEADERS = {
    "a length of 10 GB": struct.pack("<Q", 10 << 30) + b"{}",
    "a length of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "a length of 2^64 - 1": b"\xff" * 8 + b"{}",
    "negative offsets": file({"a": {**ONE, "data_offsets": [-4, 0]}}, bytes(4)),
    "swapped offsets": file({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4)),
    "overlapping tensors": file({"a": ONE, "b": ONE}, bytes(4)),
    "a hole": file({"a": {**ONE, "data_offsets": [4, 8]}}, bytes(8)),
    "bytes behind": file({"a": ONE}, bytes(5)),
    "beyond the end": file({"a": {**ONE, "shape": [1 << 20], "data_offsets": [0, 4 << 20]}}, bytes(4)),
    "an overflowing shape": file({"a": {**ONE, "shape": [2**62, 4, 2**62]}}, bytes(4)),
    "a key twice": file(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
    ),
    "metadata twice": file(b'{"__metadata__":{"a":"1"},"__metadata__":{"b":"2"}}'),
    "deep": file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep metadata": file({"__metadata__": {"prunebench": "[" * 100_000}, "a": ONE}, bytes(4)),
    "control characters": file({"a": {**ONE, "dtype": "\x1b[2J\nprunebench: done"}}, bytes(4)),
    "no UTF-8": file(b'{"\xff":1}'),
    "a list": file([ONE]),
    "a number": file(b"1"),
    "nothing": b"",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_malicious_header_is_one_plain_line(tmp_path, content):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"evil\.safetensors") as error:
        pb.load(path)
    assert is_plain(str(error.value))
    assert len(str(error.value)) < 1000


def test_a_claimed_length_takes_no_memory(tmp_path):
    """In a process that may not have a gigabyte more than it has."""
    for name, content in HEADERS.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(content)
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        import torch, prunebench as pb
        pb.load  # imported before memory is short
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
        for path in Path(sys.argv[1]).iterdir():
            try:
                pb.load(path)
                sys.exit(f"{path} was read")
            except pb.errors.UsageError as error:
                assert "memory" not in str(error).lower(), error
    """)
    code = code.replace("pb.errors.UsageError", "UsageError").replace(
        "pb.load  #", "from prunebench.errors import UsageError; pb.load  #"
    )
    if not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux":
        pytest.skip("no limit of address space here")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_malicious_entry_of_a_store_is_set_aside(tmp_path):
    """Deep, huge or pickled metadata costs a retraining, never more."""
    store = Store(tmp_path)
    for number, meta in enumerate(["[" * 100_000, '{"schema": 1, "record": ' + "9" * 10_000 + "}", pickled("x").hex()]):
        key = f"{number}" * 32
        store.path(key).mkdir(parents=True)
        (store.path(key) / "meta.json").write_text(meta)
        assert store.get(key) is None
    assert store.set_aside == 3
    reasons = [path.read_text() for path in (tmp_path / "damaged").glob("*/reason.txt")]
    assert len(reasons) == 3
    assert all(is_plain(reason.rstrip("\n")) for reason in reasons)


def test_an_entry_that_is_no_file_does_not_hang(tmp_path):
    import os

    store = Store(tmp_path)
    store.path("a" * 32).mkdir(parents=True)
    os.mkfifo(store.path("a" * 32) / "meta.json")
    assert store.get("a" * 32) is None
