"""Entries of other formats: a folder that an old version wrote is read as today's, a newer one is left alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from prunebench.cell import Cell, Recipe
from prunebench.errors import UsageError
from prunebench.pipeline import key_of
from prunebench.store import Store, entries, schemas
from prunebench.store.catalog import entries_of
from prunebench.store.upkeep import clean, verify

# Written by the version whose schema was 1: a dense checkpoint, a pruned one made from it, one that diverged.
GOLDEN = Path(__file__).parent / "golden" / "schema_1"
CELL = Cell("digits:size=8", "lenet300", "l1", "weight", "global", "agp", 0.9, 0, Recipe(epochs=1, fine_tune_epochs=1))


@pytest.fixture
def old(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "store")
    return Store(tmp_path / "store")


def contents(root):
    return {f.relative_to(root): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_a_store_of_schema_1_is_read_as_today_s(old):
    before = contents(old.root)
    dense, pruned = old.get(key_of(CELL.control)), old.get(key_of(CELL))
    assert (dense.meta["schema"], pruned.meta["schema"]) == (schemas.SCHEMA, schemas.SCHEMA)
    assert dense.meta["key"] == dense.key
    assert (dense.meta["validation_accuracy"], pruned.meta["validation_accuracy"]) == (0.875, 0.75)
    assert pruned.meta["spec"]["parent"] == dense.key
    assert torch.equal(dense.state["fc1.weight"], torch.arange(6.0).view(2, 3))
    assert torch.equal(pruned.state["fc1.weight"], torch.tensor([[0.0, 0, 0], [0, 4, 5]]))
    assert dense.meta["created"].endswith("+00:00")
    assert old.set_aside == 0
    assert contents(old.root) == before


def test_its_names_and_its_divergence_are_listed(old):
    found = {e.name: (e.status, e.accuracy) for e in entries_of(old)}
    assert found == {
        "lenet300-digits_size8-none-none-none-none-s000-seed0": ("ok", 0.875),
        "lenet300-digits_size8-l1-weight-global-agp-s900-seed0": ("ok", 0.75),
        "lenet300-digits_size8-l1-weight-global-agp-s990-seed0": ("diverged", None),
    }
    assert [trouble for _, trouble in verify(old)] == [None] * 3
    assert clean(old) == []


def test_an_old_entry_under_another_s_name_is_damaged(old):
    key = key_of(CELL)
    shutil.rmtree(old.path(key))
    shutil.copytree(old.path(key_of(CELL.control)), old.path(key))
    assert old.get(key) is None
    assert old.set_aside == 1
    [reason] = old.root.glob("damaged/*/reason.txt")
    assert "under another's name" in reason.read_text()


def newer(store, key):
    path = store.path(key) / entries.META
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "schema": schemas.SCHEMA + 1, "record": {"of": "another kind"}}))


def test_a_newer_entry_is_refused_and_never_set_aside(old):
    key = key_of(CELL)
    newer(old, key)
    before = contents(old.path(key))
    for call in (lambda: old.get(key), lambda: old.put(key, {"kind": "dense"}, {"status": "ok"}, {})):
        with pytest.raises(UsageError, match="has schema 3, this version reads up to 2") as error:
            call()
        assert "--store DIR" in str(error.value)
        assert "\n" not in str(error.value)
    assert [t.what for _, t in verify(old) if t] == ["newer"]
    assert [e.status for e in entries_of(old) if e.key == key] == ["newer"]
    assert clean(old, older_than=0.0, unreachable=True, revision=99)  # the others go
    assert key in old
    assert contents(old.path(key)) == before
    assert old.set_aside == 0
