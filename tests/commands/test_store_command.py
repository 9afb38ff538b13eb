"""`prunebench store ls|verify|gc|path` as a user types it."""

import json
import time

import pytest
from filling import DAY, DENSE, add, fill, pruned

from prunebench import cli
from prunebench.store import Store, entries

NOW = time.time()


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNEBENCH_STORE", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def run(capsys):
    """Runs `prunebench store …`: exit code, lines of output, lines of errors."""

    def call(*arguments):
        code = cli.main(["store", *arguments])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return call


def test_ls_is_a_table(store, run):
    parent = add(store, DENSE, NOW - 3 * DAY, accuracy=0.98765)
    add(store, pruned(parent, 0.9), NOW - 7200, status="diverged", accuracy=None)
    code, lines, said = run("ls")
    assert code == 0
    assert lines[0].split() == ["key", "name", "status", "validation", "bytes", "age"]
    rows = [line.split() for line in lines[1:]]
    assert rows[0][1:4] == ["lenet5-mnist-l1-weight-global-agp-s900-seed3", "diverged", "-"]
    assert rows[0][-2:] == ["2", "h"]
    assert rows[1][:3] == [parent[:12], "lenet5-mnist-none-none-none-none-s000-seed3", "ok"]
    assert rows[1][3:5] + rows[1][-2:] == ["98.77", "%", "3", "d"]
    assert said == [f"prunebench: 2 entries, {_size(store):,} bytes in {store.root}"]


def _size(store):
    return sum(f.stat().st_size for f in store.root.glob("artifacts/*/*/*"))


def test_ls_for_other_programs(store, run):
    keys = fill(store, 3, NOW)
    code, lines, said = run("ls", "--json")
    found = {entry["key"]: entry for entry in json.loads("\n".join(lines))["entries"]}
    assert (code, said, set(found)) == (0, [], set(keys))
    one = found[keys[0]]
    assert one["path"] == str(store.path(keys[0]))
    assert (one["status"], one["accuracy"], one["kind"], one["made_from"]) == ("ok", 0.5, "dense", [])
    assert abs(one["created"] - NOW) < 1


def test_an_empty_store_is_told(store, run):
    assert run("ls") == (0, [], [f"prunebench: 0 entries, 0 bytes in {store.root}"])
    assert json.loads("\n".join(run("ls", "--json")[1]))["entries"] == []
    assert run("verify")[0] == 0
    assert run("gc")[0] == 0
    assert not store.root.exists()


def test_verify_fails_once_and_mends(store, run):
    keys = fill(store, 3, NOW)
    assert run("verify") == (0, [], [f"prunebench: 3 entries are whole; {store.root}"])
    (store.path(keys[1]) / entries.WEIGHTS).write_bytes(b"other")
    for arguments, words in ((["--dry-run"], "would be set aside"), ([], "set aside")):
        code, lines, said = run("verify", *arguments)
        assert code == 1
        assert lines == [f"{keys[1]}  damaged, {words}: the weights' digest differs"]
        assert said == [f"prunebench: 2 entries are whole, 1 damaged; {store.root}"]
    assert run("verify")[0] == 0
    code, lines, _ = run("gc")
    assert code == 0
    assert len(lines) == 1
    assert lines[0].startswith(f"damaged/{keys[1]}-")


def test_a_newer_entry_fails_nothing_and_is_told(store, run):
    [key] = fill(store, 1, NOW)
    path = store.path(key) / entries.META
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    code, lines, said = run("verify")
    assert code == 0
    assert "schema 99" in lines[0]
    assert said == [f"prunebench: 0 entries are whole, 1 newer; {store.root}"]


def test_gc_says_what_would_go(store, run):
    keys = fill(store, 3, NOW - 10 * DAY)
    assert run("gc", "--older-than", "9.5", "--dry-run")[0] == 0
    assert len(list(store.keys())) == 3
    code, lines, said = run("gc", "--older-than", "9.5")
    assert code == 0
    assert sorted(line.split()[0].rpartition("/")[2] for line in lines) == sorted(keys)
    assert all("lenet5-mnist-" in line and "10 days old" in line for line in lines)
    assert said[0].startswith("prunebench: 3 leftovers")
    assert list(store.keys()) == []


def test_path_of_a_key(store, run):
    keys = fill(store, 3, NOW)
    for given in (keys[1], keys[1][:9], keys[1].upper()):
        assert run("path", given) == (0, [str(store.path(keys[1]))], [])


def test_path_of_a_cell(store, run):
    from prunebench.cell import Cell
    from prunebench.pipeline import key_of, spec_of
    from prunebench.profiles import recipe

    options = ("--dataset", "digits", "--criterion", "l2", "--sparsity", "0.5", "--epochs", "2")
    cell = Cell("digits", "lenet300", "l2", "weight", "global", "agp", 0.5, 0, recipe("lenet300", "digits", epochs=2))
    code, lines, said = run("path", *options)
    assert (code, lines) == (1, [str(store.path(key_of(cell)))])
    assert said == [f"prunebench: {key_of(cell)} is not stored yet"]
    assert add(store, spec_of(cell), NOW) == key_of(cell)
    assert run("path", *options) == (0, lines, [])
    unpruned = run("path", "--criterion", "none", "--epochs", "2")
    assert unpruned[1] == [str(store.path(key_of(cell.control)))]
    assert len(run("path", *options, "--controls")[1]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["path", "abc"], "key 'abc' can't be one; give at least 4 of its 32 hexadecimal digits"),
        (["path", "../../etc"], "can't be one"),
        (["path", ""], "key '' can't be one"),
        (["path", "0000"], "no entry begins with '0000'"),
        (["path", "--model", "lenet6"], "unknown model 'lenet6'"),
        (["gc", "--older-than", "soon"], "--older-than 'soon' is no number of days"),
        (["gc", "--older-than", "-1"], "is no number of days"),
        (["gc", "--older-than", "nan"], "is no number of days"),
        (["tidy"], "invalid choice: 'tidy'"),
        ([], "ACTION"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(store, run, arguments, words):
    code, lines, said = run(*arguments)
    assert (code, lines, len(said)) == (2, [], 1)
    assert words in said[0]


def test_several_entries_of_one_beginning_are_told(store, run, monkeypatch):
    monkeypatch.setattr(Store, "keys", lambda self: iter(["abcd" + "0" * 28, "abcd" + "1" * 28]))
    assert "2 entries begin with 'abcd'" in run("path", "abcd")[2][0]


@pytest.mark.parametrize("action", ["ls", "verify", "gc"])
def test_a_file_is_no_store(tmp_path, action, capsys):
    file = tmp_path / "file"
    file.touch()
    assert cli.main(["store", action, "--store", str(file)]) == 2
    assert "is a file; name a folder with --store" in capsys.readouterr().err
