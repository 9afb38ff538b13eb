"""The journal of a running benchmark: one line a case, on disk at once, gone when the run was saved."""

import json
import os
import resource

import pytest

from prunebench.errors import UsageError
from prunebench.journal import SUFFIX, Journal, check_run_name

MACHINE = {"id": "0123456789", "cpu": "some CPU"}


def test_every_case_is_a_line_after_the_machine(tmp_path):
    journal = Journal(tmp_path / "runs" / "here", "quick", MACHINE)
    assert not journal.path.exists()
    for i in range(3):
        journal.write({"case": i})
        lines = journal.path.read_text().splitlines()
        assert json.loads(lines[0])["machine"] == MACHINE
        assert [json.loads(line) for line in lines[1:]] == [{"case": k} for k in range(i + 1)]
    assert journal.path.name == f"quick-{os.getpid()}{SUFFIX}"


def test_it_goes_once_the_run_is_saved(tmp_path):
    (tmp_path / "0001_quick.json").write_text("{}")  # an earlier run of the same name
    journal = Journal(tmp_path, "quick", MACHINE)
    journal.write({"case": 0})
    journal.close()
    assert journal.path.exists()
    (tmp_path / "0002_quick.json").write_text("{}")
    journal.close()
    assert not journal.path.exists()


def test_another_run_s_file_does_not_remove_it(tmp_path):
    journal = Journal(tmp_path, "quick", MACHINE)
    journal.write({"case": 0})
    (tmp_path / "0001_other.json").write_text("{}")
    journal.close()
    assert journal.path.exists()


def test_closing_without_a_case_is_nothing(tmp_path):
    Journal(tmp_path / "none", "quick", MACHINE).close()
    assert not (tmp_path / "none").exists()


def test_nan_is_refused_and_nothing_is_written(tmp_path):
    journal = Journal(tmp_path, "quick", MACHINE)
    journal.write({"case": 0})
    before = journal.path.read_bytes()
    with pytest.raises(ValueError):
        journal.write({"accuracy": float("nan")})
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("name", ["quick", "a", "0", "x86.v2_b-c", "a" * 64])
def test_names_of_runs(name):
    assert check_run_name(name) == name


@pytest.mark.parametrize("name", ["", "Quick", ".hidden", "-x", "../up", "a/b", "a b", "a" * 65, "quick\n"])
def test_names_that_no_run_can_have(name):
    with pytest.raises(UsageError, match="run's name") as error:
        check_run_name(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", ["write", "sync"])
def test_a_full_disk_is_one_line_and_what_was_written_stays_readable(tmp_path, monkeypatch, cut):
    journal = Journal(tmp_path, "quick", MACHINE)
    journal.write({"case": 0})
    before, limits = journal.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if cut == "sync":
            patch.setattr("prunebench.journal.os.fsync", full)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
        try:
            with pytest.raises(UsageError, match="can't write") as error:
                journal.write({"case": "one that is longer than the room that is left"})
        finally:
            if cut == "write":
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert journal.path.read_bytes() == before
    journal.write({"case": 2})
    assert [json.loads(line) for line in journal.path.read_text().splitlines()][1:] == [{"case": 0}, {"case": 2}]
