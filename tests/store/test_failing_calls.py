"""Publishing while each of its system calls fails in turn: told in one line, the store valid, a rerun completes."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest
import torch

from prunebench.cell import digest
from prunebench.errors import PrunebenchError
from prunebench.store import Store
from prunebench.store.upkeep import clean, verify

CALLS = ("open", "fsync", "rename", "mkdir", "chmod", "unlink", "rmdir", "close")
SPEC = {"kind": "dense", "revision": 1, "dataset": "digits", "model": "lenet300", "seed": 0, "recipe": {}}
KEY = digest(SPEC)
META = {"status": "ok", "validation_accuracy": 0.5}


def publish(store):
    store.check_writable()
    with store.only_maker(KEY):
        if store.get(KEY) is None:
            store.put(KEY, SPEC, META, {"w": torch.arange(9.0)})
    store.get(KEY)


def failing(patch, number, code):
    """Makes call `number` of those above fail; returns what to ask for its name, None where there were fewer."""
    failed = []
    count = 0

    def wrapped(name, call):
        def one(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                failed.append(name)
                if name == "close":  # it closes all the same
                    call(*arguments)
                raise OSError(code, os.strerror(code))
            return call(*arguments, **options)

        return one

    for name in CALLS:
        patch.setattr(os, name, wrapped(name, getattr(os, name)))
    patch.setattr(fcntl, "flock", wrapped("flock", fcntl.flock))
    return lambda: failed[0] if failed else None


@pytest.mark.parametrize(
    "code",
    [
        errno.EIO,
        *(pytest.param(c, marks=pytest.mark.slow) for c in (errno.ENOSPC, errno.EINTR, errno.EACCES, errno.ESTALE)),
    ],
    ids=errno.errorcode.get,
)
def test_each_call_fails_in_turn(code, tmp_path):
    met, told = set(), ""
    for number in range(1, 1000):
        store = Store(tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            failed = failing(patch, number, code)
            try:
                publish(store)
            except PrunebenchError as error:
                told = str(error)
            if failed() is None:
                break
        met.add(failed())
        assert "\n" not in told
        assert [trouble for _, trouble in verify(store) if trouble] == []
        publish(Store(store.root))
        clean(store)
        files = sorted(f.name for f in store.root.rglob("*") if f.is_file())
        assert files == ["meta.json", "weights.safetensors"]
        assert torch.equal(store.get(KEY).state["w"], torch.arange(9.0))
    assert met >= {"open", "fsync", "rename", "mkdir", "close", "flock"}
    assert number > 20
