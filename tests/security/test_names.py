"""No name leads out of its folder: of runs, entries, logs, plots and tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from prunebench.atomic import make_folder, write_bytes, write_text
from prunebench.cell import Case, Cell
from prunebench.errors import UsageError
from prunebench.journal import check_run_name
from prunebench.plots.plot import file_name
from prunebench.runs import load_runs, read_run
from prunebench.spec import Spec
from prunebench.store import Store

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "saved_run"
ESCAPES = [
    "..", ".", "../x", "..\\x", "/etc/passwd", "\\\\host\\share", "C:\\x", "C:x", "x/../../y", "a/b", "a\\b", "x\x00y",
    "x\ny", "x\n", "~", "~root", "$HOME", "%2e%2e%2f", "-rf", "--output", "*", "a b", "", "con", "nul", "nul.txt",
    "com1", "lpt9.x", "aux", "prn.json", "\u2024\u2024/x", "\uff0e\uff0e\uff0f", "\u0430dmin", "x\u202ey", "\u2215etc",
    "x\u200by", "x" * 65, ".hidden", "é", "A",
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_a_run_can_not_be_called_so(name):
    with pytest.raises(UsageError, match="can't be a run's name"):
        check_run_name(name)


@pytest.mark.parametrize("name", ["quick", "a-b.c_d", "2024-01-01", "x" * 64, "console", "nullable", "com10"])
def test_a_run_can_be_called_so(name):
    assert check_run_name(name) == name


@pytest.mark.parametrize("key", [e for e in ESCAPES if not e.isascii() or not e.isalnum() or not e.islower()])
def test_an_entry_lies_in_its_store(tmp_path, key):
    store = Store(tmp_path / "store")
    for use in (store.path, store.get, lambda k: store.put(k, {}, {}, {"w": torch.ones(1)})):
        with pytest.raises(UsageError, match="can't be an entry's key"):
            use(key)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ESCAPES)
def test_a_plugin_s_name_is_ascii_and_its_slug_is_one_name(name):
    """The slug is what ids, folders of logs and file names are made of."""
    with pytest.raises(UsageError):
        Spec.parse(f"{name}x/" if name.isalnum() and name.isascii() and name.islower() else name)
    if name and ":" not in name:
        slug = Spec.parse(f"imagefolder:{name}").slug
        assert all(c.isascii() and (c.isalnum() or c == "_") for c in slug)


@pytest.mark.parametrize("name", ESCAPES)
def test_files_made_of_names_lie_in_their_folder(tmp_path, name):
    cell = Cell(f"imagefolder:{name or 'x'}", "lenet5", "l1", "weight", "global", "agp", 0.9)
    if ":" in name:  # C:x reads as a name and a value, and C is no name
        with pytest.raises(UsageError):
            file_name(name)
        return
    made = file_name("accuracy_by_criterion", "lenet5", cell.dataset, name)
    for part in (made, cell.id, Case(cell, "csr", 1).id):
        assert Path(part).name == part
        assert part not in (".", "..")
        assert part.isascii()
        assert part.isprintable()
    assert (tmp_path / made).resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize("id", ["../x", "a/b", "a\x00", "..", "", "é", "x" * 33, "A"])
def test_a_machine_s_id_names_no_other_file(tmp_path, id):
    content = json.loads((CORPUS / "grid.json").read_text())
    content["machine_info"]["prunebench"]["id"] = id
    path = tmp_path / "0001_x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="machine's id"):
        read_run(path)


def test_a_run_is_found_by_name_or_path_only(tmp_path):
    (tmp_path / "runs").mkdir()
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    for text in ("../secret", "x\x00y", "*", "[a-z]", "..", ""):
        with pytest.raises(UsageError, match="unknown run"):
            load_runs(tmp_path / "runs", [text])


def test_a_link_is_replaced_and_not_followed(tmp_path):
    """A report or table written over a link changes the link's place, never the file it leads to."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    write_text(link, "new")
    assert target.read_text() == "kept"
    assert link.read_text() == "new"
    assert not link.is_symlink()


@pytest.mark.parametrize("name", ["a\x00b", "x" * 300, "missing/x"])
def test_a_path_that_can_not_be_is_one_line(tmp_path, name):
    with pytest.raises(UsageError, match="can't write") as error:
        write_bytes(tmp_path / name, b"x")
    assert "\n" not in str(error.value)
    if name != "missing/x":
        with pytest.raises(UsageError, match="can't write"):
            make_folder(tmp_path / name)
    assert os.listdir(tmp_path) == []
