"""The store: what is put is got, damage is set aside and counted, and no kill, race or full disk breaks it."""

import json
import os
import signal
import time
import warnings

import pytest
import torch

from prunebench import store as store_module
from prunebench.store import Store, StoreError

KEY = "ab" + "0" * 30
STATE = {"w": torch.arange(12.0).view(3, 4), "b": torch.zeros(2, dtype=torch.int64)}
META = {"status": "ok", "reason": None, "accuracy": 0.5}
SPEC = {"kind": "dense", "seed": 0}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_round_trip(store):
    assert store.get(KEY) is None
    assert KEY not in store
    put = store.put(KEY, SPEC, META, STATE)
    got = store.get(KEY)
    assert KEY in store
    assert got.key == put.key == KEY
    assert got.meta == put.meta
    assert {k: got.meta[k] for k in META} == META
    assert got.meta["spec"] == SPEC
    assert got.meta["schema"] == 2
    assert got.meta["key"] == KEY
    assert all(torch.equal(got.state[k], STATE[k]) for k in STATE)
    assert files(store.root) == [f"artifacts/ab/{KEY}/meta.json", f"artifacts/ab/{KEY}/weights.safetensors"]


def test_the_spec_lies_readable_beside_the_weights(store):
    store.put(KEY, SPEC, META, STATE)
    assert json.loads((store.path(KEY) / "meta.json").read_text())["spec"] == SPEC


def test_an_entry_without_weights(store):
    store.put(KEY, SPEC, {"status": "diverged", "reason": "NaN"}, None)
    got = store.get(KEY)
    assert got.state is None
    assert got.meta["status"] == "diverged"
    assert files(store.root) == [f"artifacts/ab/{KEY}/meta.json"]


def truncate(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def edit_weights(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_meta(folder):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "digest": "0" * 64}))


def move_under_another_name(folder):
    other = "cd" + "3" * 30
    Store(folder.parents[2]).put(other, SPEC, META, STATE)
    for name in ("meta.json", "weights.safetensors"):
        os.replace(folder.parents[1] / "cd" / other / name, folder / name)


DAMAGE = {
    "truncated weights": truncate,
    "edited weights": edit_weights,
    "missing weights": lambda f: (f / "weights.safetensors").unlink(),
    "edited digest": edit_meta,
    "truncated meta": lambda f: (f / "meta.json").write_text((f / "meta.json").read_text()[:40]),
    "empty meta": lambda f: (f / "meta.json").write_text(""),
    "missing meta": lambda f: (f / "meta.json").unlink(),
    "meta of another kind": lambda f: (f / "meta.json").write_text("[1]"),
    "meta without digest": lambda f: (f / "meta.json").write_text('{"schema": 1}'),
    "schema of another kind": lambda f: (f / "meta.json").write_text('{"schema": "2", "digest": null}'),
    "schema below the first": lambda f: (f / "meta.json").write_text('{"schema": 0, "digest": null}'),
    "another entry's files": move_under_another_name,
    "binary meta": lambda f: (f / "meta.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_set_aside_counted_and_rebuilt(store, damage):
    store.put(KEY, SPEC, META, STATE)
    damage(store.path(KEY))
    assert store.get(KEY) is None
    assert store.set_aside == 1
    assert KEY not in store
    assert not store.path(KEY).exists()
    [aside] = (store.root / "damaged").iterdir()
    assert (aside / "reason.txt").read_text().strip()
    store.put(KEY, SPEC, META, STATE)
    assert torch.equal(store.get(KEY).state["w"], STATE["w"])
    assert store.set_aside == 1


def test_damage_twice_keeps_both(store):
    for _ in range(2):
        store.put(KEY, SPEC, META, STATE)
        truncate(store.path(KEY))
        assert store.get(KEY) is None
    assert store.set_aside == 2
    assert len(list((store.root / "damaged").iterdir())) == 2


def test_the_first_writer_wins(store):
    store.put(KEY, SPEC, {**META, "accuracy": 0.1}, STATE)
    Store(store.root).put(KEY, SPEC, {**META, "accuracy": 0.9}, STATE)
    assert store.get(KEY).meta["accuracy"] == 0.1
    assert len(files(store.root)) == 2


def forked(work) -> int:
    """Runs work() in a child process; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def test_processes_publishing_one_key_all_end_well(store):
    gate, opened = os.pipe()

    def publish():
        os.close(opened)
        os.read(gate, 1)  # until the parent closes its end
        for i in range(20):
            Store(store.root).put(f"ab{i:030x}", SPEC, META, STATE)

    children = [forked(publish) for _ in range(4)]
    os.close(gate)
    os.close(opened)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    for i in range(20):
        assert torch.equal(store.get(f"ab{i:030x}").state["w"], STATE["w"])
    assert store.set_aside == 0
    assert len(files(store.root)) == 40


@pytest.mark.parametrize("moment", ["half the weights", "before the record", "before the rename", "after the rename"])
def test_a_kill_in_the_middle_of_put_leaves_a_valid_store(store, monkeypatch, moment):
    store.put("cd" + "1" * 30, SPEC, META, STATE)
    ready, tell = os.pipe()

    def stop():
        os.write(tell, b"x")
        time.sleep(60)

    def put():
        write, rename = store_module._write, os.rename

        def slow_write(path, content):
            if moment == "half the weights":
                write(path, content[: len(content) // 2])
                stop()
            if moment == "before the record" and path.name == "meta.json":
                stop()
            write(path, content)

        def slow_rename(a, b):
            if moment == "before the rename":
                stop()
            rename(a, b)
            stop()

        store_module._write, store_module.os.rename = slow_write, slow_rename
        Store(store.root).put(KEY, SPEC, META, STATE)

    child = forked(put)
    assert os.read(ready, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    os.close(ready)
    os.close(tell)
    found = store.get(KEY)
    assert (found is not None) == (moment == "after the rename")
    assert store.set_aside == 0
    store.put(KEY, SPEC, META, STATE)
    assert torch.equal(store.get(KEY).state["w"], STATE["w"])
    assert store.get("cd" + "1" * 30) is not None


@pytest.fixture
def read_only(store, monkeypatch):
    """A store that can only be read; permissions don't bind root, so the calls themselves are refused."""
    store.put(KEY, SPEC, META, STATE)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(store_module.os, "rename", refuse)
    monkeypatch.setattr(store_module.os, "access", lambda path, mode: not mode & os.W_OK)
    return store


def test_a_read_only_store_serves_hits(read_only):
    before = files(read_only.root)
    assert torch.equal(read_only.get(KEY).state["w"], STATE["w"])
    assert read_only.get("cd" + "0" * 30) is None
    assert files(read_only.root) == before


def test_a_read_only_store_says_what_to_do(read_only):
    for call in (read_only.check_writable, lambda: read_only.put("cd" + "0" * 30, SPEC, META, STATE)):
        with pytest.raises(StoreError, match="--store DIR") as error:
            call()
        assert "\n" not in str(error.value)
    truncate(read_only.path(KEY))
    with pytest.raises(StoreError, match="can't be set aside"):
        read_only.get(KEY)


def test_a_store_under_a_file_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    assert store.get(KEY) is None
    with pytest.raises(StoreError, match="--store DIR"):
        store.check_writable()
    with pytest.raises(StoreError, match="--store DIR"):
        store.put(KEY, SPEC, META, STATE)


def test_asking_creates_nothing(store):
    store.check_writable()
    assert store.get(KEY) is None
    assert not store.root.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(store, monkeypatch):
    store.put("cd" + "1" * 30, SPEC, META, STATE)
    before = files(store.root)

    def full(path, content):
        path.write_bytes(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_write", full)
    with pytest.raises(StoreError, match="No space left on device") as error:
        store.put(KEY, SPEC, META, STATE)
    assert "\n" not in str(error.value)
    assert files(store.root) == before
    assert store.get("cd" + "1" * 30) is not None
