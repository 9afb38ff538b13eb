"""Verifying and cleaning up: damage is found and set aside, leftovers go, and nothing that somebody uses."""

import os
import shutil
import time

import pytest
from filling import DAY, DENSE, add, age, fill, pruned

from prunebench.store import Store, StoreError, entries, locks, upkeep
from prunebench.store.upkeep import clean, verify

NOW = time.time()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def files(store):
    return sorted(str(f.relative_to(store.root)) for f in store.root.rglob("*"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("dry_run", [False, True])
def test_verify_reads_every_digest(store, dry_run):
    keys = fill(store, 6, NOW)
    flip(store.path(keys[2]) / entries.WEIGHTS)
    (store.path(keys[4]) / entries.META).write_text("{")
    found = {t.key: t for _, t in verify(store, dry_run) if t}
    assert {key: t.what for key, t in found.items()} == {keys[2]: "damaged", keys[4]: "damaged"}
    assert found[keys[2]].reason == "the weights' digest differs"
    assert [key in store for key in keys] == ([True] * 6 if dry_run else [True, True, False, True, False, True])
    assert store.set_aside == (0 if dry_run else 2)
    again = [t for _, t in verify(store) if t]
    assert len(again) == (2 if dry_run else 0)


def test_what_can_not_be_read_is_not_damage(store, monkeypatch):
    fill(store, 2, NOW)
    before = files(store)

    def refuse(path, most):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(entries, "read_bytes", refuse)
    assert [t.what for _, t in verify(store)] == ["unreadable"] * 2
    for key in store.keys():  # noqa: SIM118
        with pytest.raises(StoreError, match="Permission denied"):
            store.get(key)
    assert files(store) == before


def leftovers(store):
    """A store of two entries with all that kills leave: {path under the root that may go}."""
    parent, kid = fill(store, 2, NOW)
    shard = store.path(parent).parent
    (shard / f".{'1' * 32}-abc").mkdir()
    (shard / f".{'1' * 32}-abc" / entries.WEIGHTS).write_bytes(b"half")
    unfinished, making = store.root / "unfinished", store.root / "making"
    unfinished.mkdir()
    making.mkdir()
    (unfinished / f"{kid}.safetensors").write_bytes(b"published since")
    (unfinished / f"{'2' * 32}.safetensors").write_bytes(b"goes on one day")
    (unfinished / f".{'2' * 32}.safetensors.xyz").write_bytes(b"half")
    (making / f"{'3' * 32}.lock").write_bytes(b"")
    flip(store.path(add(store, pruned(parent, 0.77), NOW)) / entries.WEIGHTS)
    list(verify(store))
    return {
        f"{shard.relative_to(store.root)}/.{'1' * 32}-abc",
        f"unfinished/{kid}.safetensors",
        f"unfinished/.{'2' * 32}.safetensors.xyz",
        f"making/{'3' * 32}.lock",
        f"damaged/{next((store.root / 'damaged').iterdir()).name}",
    }


def names(store, gone):
    return {str(one.path.relative_to(store.root)) for one in gone}


def test_leftovers_go_and_nothing_else(store):
    expected = leftovers(store)
    before = files(store)
    assert names(store, clean(store, dry_run=True)) == expected
    assert files(store) == before
    assert names(store, clean(store)) == expected
    assert set(before) - set(files(store)) >= expected
    assert [t for _, t in verify(store)] == [None, None]
    assert (store.root / "unfinished" / f"{'2' * 32}.safetensors").exists()
    assert clean(store) == []


def test_what_a_live_process_writes_stays(store):
    leftovers(store)
    _, kid = sorted(store.keys(), key=lambda key: store.path(key).stat().st_mtime_ns)[:2]
    with store.only_maker("2" * 32), store.only_maker("3" * 32):
        for dry_run in (True, False):
            gone = names(store, clean(store, dry_run=dry_run, older_than=0.0))
            assert not [name for name in gone if "2" * 32 in name or "3" * 32 in name]
            assert [name for name in gone if kid in name]
    assert (store.root / "unfinished" / f"{'2' * 32}.safetensors").exists()
    with locks.publishing(store.root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep.locks, "alone", lambda root, wait=locks.alone: wait(root, 0.1))
        with pytest.raises(locks.Busy):
            clean(store)


@pytest.mark.parametrize("hours", [-48.0, 48.0])
def test_whatever_the_clock_says_a_dead_writer_s_folder_goes(store, hours):
    fill(store, 1, NOW)
    folder = next((store.root / "artifacts").iterdir()) / f".{'1' * 32}-abc"
    folder.mkdir()
    age(folder, hours * 3600, NOW)
    (store.root / ".index.tsv.abc").write_text("half")
    age(store.root / ".index.tsv.abc", hours * 3600, NOW)
    assert len(clean(store)) == 2
    assert not folder.exists()


def test_without_locks_only_time_tells_of_death(store, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    fill(store, 1, NOW)
    for name, hours in (("young", 1.0), ("old", 25.0), ("future", -25.0)):
        folder = next((store.root / "artifacts").iterdir()) / f".{name}"
        folder.mkdir()
        age(folder, hours * 3600, NOW)
    assert [one.path.name for one in clean(store)] == [".old"]


def test_entries_go_by_age_but_for_what_younger_ones_were_made_from(store):
    parent = add(store, DENSE, NOW - 40 * DAY)
    old = add(store, pruned(parent, 0.5), NOW - 40 * DAY)
    original = add(store, pruned(parent, 0.6), NOW - 40 * DAY)
    young = add(store, pruned(parent, 0.7, original=original), NOW - DAY)
    future = add(store, pruned("0" * 32, 0.8), NOW + 400 * DAY)  # the clock was put back since
    orphan = add(store, {**DENSE, "seed": 9}, NOW - 40 * DAY)
    (store.root / "unfinished").mkdir()
    for name, days in (("4" * 32, 40), ("5" * 32, 1), ("6" * 32, -400)):
        (store.root / "unfinished" / f"{name}.safetensors").write_text("")
        age(store.root / "unfinished" / f"{name}.safetensors", days * DAY, NOW)
    assert clean(store) == []
    gone = clean(store, older_than=30.0)
    assert {one.path.name for one in gone} == {old, orphan, "4" * 32 + ".safetensors"}
    assert set(store.keys()) == {parent, original, young, future}
    assert any("40 days old" in one.why for one in gone)


def test_entries_of_another_revision_are_unreachable(store):
    parent = add(store, DENSE, NOW)
    now = add(store, {**DENSE, "revision": 2}, NOW)
    child = add(store, pruned(parent, 0.5), NOW)
    assert clean(store, revision=2) == []
    assert {one.path.name for one in clean(store, unreachable=True, revision=2)} == {parent, child}
    assert set(store.keys()) == {now}


def test_a_kill_in_the_middle_of_removing_leaves_no_half_entry(store, monkeypatch):
    fill(store, 1, NOW - 2 * DAY)

    def killed(path):
        (path / entries.WEIGHTS).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            clean(store, older_than=1.0)
    assert list(store.keys()) == []
    assert [one.why for one in clean(store)] == ["half written"]
    assert not [name for name in files(store) if entries.META in name]


def test_links_out_of_the_store_are_not_followed(store, tmp_path):
    fill(store, 1, NOW)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    (store.root / "damaged").mkdir()
    os.symlink(tmp_path / "mine", store.root / "damaged" / "link")
    assert len(clean(store)) == 1
    assert (tmp_path / "mine" / "file").read_text() == "precious"


def test_no_store_is_nothing_to_do(store):
    assert clean(store) == []
    assert list(verify(store)) == []
    assert not store.root.exists()
