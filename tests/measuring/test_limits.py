"""The limits of an isolated case: sizes as people write them, a default that leaves the machine alive."""

import os
import sys

import pytest

from prunebench.errors import UsageError
from prunebench.measuring import limits, resident
from prunebench.measuring.limits import Limits, limits_of


def test_without_an_option_nothing_is_isolated():
    assert limits_of(False, None, None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("4G", 4 * 10**9), ("512mb", 512 * 10**6), ("1.5 GiB", 3 * 2**29), ("1000000", 10**6)],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert limits_of(False, text, None) == Limits(count, limits.SECONDS)  # a limit asks for isolation by itself


def test_seconds_may_be_given_alone():
    assert limits_of(False, None, "2.5").seconds == 2.5


@pytest.mark.parametrize("text", ["", "4X", "-1GB", "0", "GB", "many", "1e9"])
def test_a_size_that_is_none_is_told(text):
    with pytest.raises(UsageError, match=r"--isolate-memory .* can't be used; give bytes such as 4GB"):
        limits_of(True, text, None)


@pytest.mark.parametrize("text", ["", "0", "-3", "nan", "inf", "soon"])
def test_seconds_that_are_none_are_told(text):
    with pytest.raises(UsageError, match=r"--isolate-seconds .* can't be used; give seconds above 0"):
        limits_of(True, None, text)


def test_where_memory_cannot_be_read_only_time_is_limited(monkeypatch):
    monkeypatch.setattr(limits, "available_bytes", lambda: None)
    assert limits_of(True, None, None) == Limits(None, limits.SECONDS)
    with pytest.raises(UsageError, match="needs a system with /proc"):
        limits_of(True, "4GB", None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_default_leaves_a_fifth_of_what_is_free():
    free = resident.available_bytes()
    assert limits_of(True, None, None).memory == pytest.approx(0.8 * free, rel=0.2)
    assert 0 < resident.held_bytes(os.getpid()) < free


def test_the_limits_read_as_a_sentence():
    assert str(Limits(4 * 10**9, 1800.0)) == "at most 4 GB of memory, 1800 s"
    assert str(Limits(None, 60.0)) == "no limit of memory, 60 s"
