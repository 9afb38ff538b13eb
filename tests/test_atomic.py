"""A file is written whole or not at all, and nothing is left behind."""

import os
import stat

import pytest

from prunebench.atomic import check_folder, create_bytes, write_bytes, write_text
from prunebench.errors import UsageError


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first, longer")
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_content_and_no_rest(tmp_path, monkeypatch, function):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"prunebench.atomic.os.{function}", full)
    with pytest.raises(UsageError, match="No space left on device") as error:
        write_bytes(path, b"new")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("place", ["no/such/folder/a", "file/a"])
def test_a_place_that_can_not_be_written_is_one_line(tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="can't write") as error:
        write_bytes(tmp_path / place, b"x")
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_new_file_replaces_nothing(tmp_path):
    path = tmp_path / "a.bin"
    assert create_bytes(path, b"first")
    assert not create_bytes(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_new_file_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("prunebench.atomic.os.link", refuse)
    assert create_bytes(tmp_path / "a.bin", b"first")
    assert not create_bytes(tmp_path / "a.bin", b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_without_room_is_told(tmp_path):
    check_folder(tmp_path, 1)
    with pytest.raises(UsageError, match="No space left on device"):
        check_folder(tmp_path / "not yet there", 10**18)
    assert os.listdir(tmp_path) == []
