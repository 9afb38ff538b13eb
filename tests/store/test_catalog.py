"""The list of a store: names as cells have them, an index that is believed only where it can't be wrong."""

import json
import os
import shutil
import time

import pytest
from filling import DENSE, add, fill, pruned

from prunebench.store import Store, catalog, entries
from prunebench.store.catalog import INDEX, entries_of

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: the tests don't wait."""
    monkeypatch.setattr(catalog, "SETTLED_SECONDS", -3600.0)


@pytest.fixture
def reads(monkeypatch):
    """The names of the entries whose metadata are read."""
    seen, read = [], entries.read_meta
    monkeypatch.setattr(entries, "read_meta", lambda folder: (seen.append(folder.name), read(folder))[1])
    return seen


def test_an_empty_store_is_none(store):
    assert entries_of(store) == []
    assert not store.root.exists()


def test_entries_are_named_as_their_cells(store):
    parent = add(store, DENSE, NOW)
    kid = add(store, pruned(parent, 0.9167, criterion="lp:p=3"), NOW, accuracy=None, status="diverged")
    twin = add(store, pruned(parent, 0.5, scope="like:criterion=l1", original=kid), NOW)
    early = add(store, {**DENSE, "kind": "dense_epoch", "epoch": 2}, NOW)
    lost = add(store, pruned("0" * 32, 0.5), NOW)
    found = {e.key: e for e in entries_of(store)}
    assert {key: e.name for key, e in found.items()} == {
        parent: "lenet5-mnist-none-none-none-none-s000-seed3",
        kid: "lenet5-mnist-lp_p3-weight-global-agp-s916_7-seed3",
        twin: "lenet5-mnist-l1-weight-like_criterionl1-agp-s500-seed3",
        early: "lenet5-mnist-none-none-none-none-s000-seed3-epoch2",
        lost: "?-l1-weight-global-agp-s500-?",
    }
    assert (found[kid].status, found[kid].accuracy) == ("diverged", None)
    assert (found[parent].accuracy, found[parent].created, found[parent].revision) == (0.5, NOW, 1)
    assert found[twin].made_from == (parent, kid)
    assert found[parent].bytes == sum(f.stat().st_size for f in store.path(parent).iterdir())


def test_what_the_index_knows_is_not_read_again(store, reads, settled):
    keys = fill(store, 30, NOW)
    first = entries_of(store)
    assert sorted(reads) == sorted(keys)
    reads.clear()
    assert entries_of(store) == first
    assert reads == []
    new = add(store, pruned(keys[0], 0.999), NOW)
    shutil.rmtree(store.path(keys[5]))
    found = entries_of(store)
    assert reads == [new]
    assert {e.key for e in found} == {*keys, new} - {keys[5]}


def test_what_changed_a_moment_ago_is_read_again(store, reads):
    keys = fill(store, 5, NOW)
    entries_of(store)
    reads.clear()
    entries_of(store)
    assert sorted(reads) == sorted(keys)  # a second change within the clock's grain would not show


def test_a_clock_put_back_makes_nothing_settled(store, reads, monkeypatch):
    keys = fill(store, 5, NOW)
    before = time.time() - 1e6
    monkeypatch.setattr(catalog.time, "time", lambda: before)
    entries_of(store)
    reads.clear()
    assert len(entries_of(store)) == 5
    assert sorted(reads) == sorted(keys)


def spoil(text):
    return lambda path: path.write_text(text)


def swap(path):
    path.write_text(path.read_text().replace("\tok\t", "\tgo\t"))


@pytest.mark.parametrize(
    "damage",
    [
        spoil(""),
        spoil("{}\n"),
        spoil('{"schema": 1, "digest": "0"}\n' + "0" * 32 + "\tlies"),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
        lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 7')),
        swap,
        lambda path: path.unlink(),
    ],
    ids=["empty", "no digest", "another digest", "truncated", "binary", "other schema", "edited", "missing"],
)
def test_an_index_that_is_not_what_was_written_is_not_believed(store, damage, reads, settled):
    fill(store, 10, NOW)
    right = entries_of(store)
    reads.clear()
    damage(store.root / INDEX)
    assert entries_of(store) == right
    assert len(reads) == 10
    reads.clear()
    assert entries_of(store) == right
    assert reads == []


@pytest.mark.parametrize("keep_times", [False, True])
def test_an_entry_edited_in_its_place_is_noticed(store, settled, keep_times):
    [key] = fill(store, 1, NOW)
    assert entries_of(store)[0].accuracy == 0.5
    path = store.path(key) / entries.META
    before = path.stat()
    path.write_text(path.read_text().replace('"validation_accuracy": 0.5', '"validation_accuracy": 0.9'))
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    [entry] = entries_of(store)
    assert (entry.status, entry.accuracy, entry.name) == ("damaged", None, "?")


def test_broken_entries_are_listed_and_left(store, settled):
    keys = fill(store, 4, NOW)
    (store.path(keys[1]) / entries.META).unlink()
    (store.path(keys[2]) / entries.META).write_text("[]")
    path = store.path(keys[3]) / entries.META
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    for _ in range(2):
        assert {e.key: e.status for e in entries_of(store)} == dict(
            zip(keys, ("ok", "damaged", "damaged", "newer"), strict=True)
        )
    assert all(store.path(key).is_dir() for key in keys)


def test_a_store_that_can_not_be_written_is_listed_all_the_same(store, monkeypatch):
    keys = fill(store, 4, NOW)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("prunebench.atomic.tempfile.mkstemp", refuse)
    assert len(entries_of(store)) == len(keys)
    assert not (store.root / INDEX).exists()


@pytest.mark.slow
def test_many_entries_are_listed_at_once(store):
    fill(store, 20_000, NOW)
    time.sleep(catalog.SETTLED_SECONDS + 0.1)
    first = entries_of(store)
    spent = []
    for _ in range(3):
        start = time.process_time()
        assert entries_of(store) == first
        spent.append(time.process_time() - start)
    assert len(first) == 20_000
    assert min(spent) < 0.4  # a fifth of what 100,000 may take
