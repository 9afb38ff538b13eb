"""Locks between processes: one at a time, none outlives its process, none left behind as a file."""

import os
import signal
import subprocess
import sys

import pytest
from running import environment

from prunebench.store import Store, locks

HOLDER = """
import sys, time
from pathlib import Path
from prunebench.store import locks
with locks.{how}(Path(sys.argv[1])):
    print("got", flush=True)
    time.sleep(float(sys.argv[2]))
print("done", flush=True)
"""


def holder(how, path, seconds=60.0):
    """A process that holds a lock: started, and holding it."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(how=how), str(path), str(seconds)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "got\n"
    return child


def killed(child):
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_another_process_is_kept_out_until_it_is_killed(tmp_path):
    path = tmp_path / "making" / "key.lock"
    child = holder("only_one", path)
    assert locks.held(path)
    with pytest.raises(locks.Busy), locks.only_one(path, wait=False):
        pass
    killed(child)
    assert not locks.held(path)
    assert path.exists()  # its file stayed, and says nothing
    with locks.only_one(path, wait=False):
        assert path.exists()
    assert list(path.parent.iterdir()) == []


def test_who_waits_gets_in_once_the_other_is_done(tmp_path):
    path = tmp_path / "key.lock"
    child = holder("only_one", path, 0.3)
    with locks.only_one(path):
        assert child.stdout.readline() in ("done\n", "")
        child.wait()
        assert os.listdir(tmp_path) == ["key.lock"]  # not the one that the holder removed
    child.stdout.close()
    assert os.listdir(tmp_path) == []


def test_a_lock_is_held_against_the_same_process_too(tmp_path):
    with locks.only_one(tmp_path / "a"), pytest.raises(locks.Busy), locks.only_one(tmp_path / "a", wait=False):
        pass
    with locks.only_one(tmp_path / "a"), locks.only_one(tmp_path / "b", wait=False):
        pass


def test_an_error_inside_lets_it_go(tmp_path):
    with pytest.raises(RuntimeError), locks.only_one(tmp_path / "a"):
        raise RuntimeError
    with locks.only_one(tmp_path / "a", wait=False):
        pass


def test_publishers_don_t_mind_each_other_and_cleaning_waits_for_them(tmp_path):
    child = holder("publishing", tmp_path)
    with locks.publishing(tmp_path):
        pass
    with pytest.raises(locks.Busy, match="try again later"), locks.alone(tmp_path, seconds=0.1):
        pass
    killed(child)
    with locks.alone(tmp_path, seconds=0.0) as nobody_writes:
        assert nobody_writes


def test_without_locks_everything_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with locks.only_one(tmp_path / "a"), locks.only_one(tmp_path / "a", wait=False), locks.publishing(tmp_path):
        assert not locks.held(tmp_path / "a")
    with locks.alone(tmp_path) as nobody_writes:
        assert not nobody_writes


def test_a_store_that_can_not_be_locked_is_one_line(tmp_path):
    (tmp_path / "making").write_text("a file")
    with pytest.raises(OSError, match="--store DIR") as error, Store(tmp_path).only_maker("key"):
        pass
    assert "\n" not in str(error.value)
