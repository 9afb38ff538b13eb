"""Files, JSON and text from somebody else: bounded, regular, plain."""

import os

import pytest

from prunebench import saved_values, untrusted
from prunebench.cell import Case, Cell
from prunebench.errors import reason
from prunebench.facts import facts_of
from prunebench.untrusted import is_plain, parse_json, plain_line, read_bytes, read_text, short_line


def test_a_regular_file_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes("ü".encode())
    assert read_bytes(path) == b"\xc3\xbc"
    assert read_text(path) == "ü"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_text(link) == "ü"


def test_a_file_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert len(read_bytes(path, 100)) == 100
    with pytest.raises(ValueError, match="more than 99 bytes"):
        read_bytes(path, 99)
    with open(path, "r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(ValueError, match="more than"):
        read_bytes(path, 1000)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # a plain open() would wait for a writer
    for path in (pipe, "/dev/zero"):
        with pytest.raises(ValueError, match="no regular file"):
            read_bytes(path)
    with pytest.raises(OSError, match="directory"):
        read_bytes(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 100 + "1" + "}" * 100])
def test_deep_json_is_refused(text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)


def test_json_as_deep_as_allowed_is_read():
    deepest = untrusted.MOST_DEPTH
    assert parse_json("[" * deepest + "]" * deepest)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * (deepest + 1) + "]" * (deepest + 1))


def test_a_key_said_twice_is_refused_where_asked():
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="says 'a' twice"):
        parse_json('{"x": [{"b": 1, "a": 1, "a": 2}]}', unique=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b\n\tc\r\n", "a b c"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("bell\x07\x00", "bell\ufffd\ufffd"),
        ("txt\u202egpj.exe", "txt\ufffdgpj.exe"),
        ("half\ud800", "half\ufffd"),
        ("\x9b31m", "\ufffd31m"),  # a one-byte escape sequence
        ("2.31× [2.25, 2.40] – µs …", "2.31× [2.25, 2.40] – µs …"),
    ],
)
def test_a_line_is_plain(text, line):
    assert plain_line(text) == line
    assert is_plain(line)
    assert is_plain(text) == (text == line)
    line.encode()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


def test_what_is_told_of_an_error_is_plain_and_bounded():
    told = reason(ValueError("one\n\x1b[31mtwo " + "y" * 300_000))
    assert told.startswith("ValueError: one \ufffd[31mtwo yyy")
    assert len(told) < 1100
    assert is_plain(told)
    assert reason(Mute()).startswith("Mute: (no words")
    assert reason(ValueError()) == "ValueError"
    assert short_line("abc", 3) == "abc"
    assert short_line("abcd", 3) == "ab…"


def test_facts_hold_words_that_their_reader_takes():
    """A reason of a hundred thousand characters once made a saved run that nothing could read."""
    case = Case(Cell("digits", "lenet300"), "dense", 1)
    facts = facts_of(case, 1, "failed", reason="\x1b]0;title\x07" + "y" * 100_000, collapse="\u202eabc")
    saved_values.texts(facts, ("reason", "collapse"), needed=True)
    assert is_plain(facts["reason"] + facts["collapse"])
