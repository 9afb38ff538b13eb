"""What commands have in common: examples that parse, a document on a clean stdout, colours where they are wanted."""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunebench import cli
from prunebench.commands import output
from prunebench.errors import UsageError
from prunebench.progress import Loop

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
TABLE = pd.DataFrame({"case": ["a", "b", "c"], "verdict": ["faster", "slower", "unstable"], "x": [1, 2, 3]})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    found = {}
    for name, parser in commands.choices.items():
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        found |= {f"{name} {n}": p for n, p in inner[0].choices.items()} if inner else {name: parser}
    return found


@pytest.mark.parametrize("name", list(subcommands()))
def test_every_command_has_json_and_examples_that_are_command_lines_of_its_own(name):
    parser = subcommands()[name]
    assert "--json" in parser.format_help()
    head, *lines = (parser.epilog or "").splitlines()
    assert head == "examples:"
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "prunebench"
        assert arguments[: len(name.split())] == name.split()
        options = cli._parser().parse_args(arguments)
        assert options.command == name.split()[-1]


def test_a_document_is_strict_json_of_what_commands_hold(capsys):
    options = argparse.Namespace(command="x", json=True)
    output.emit(
        options,
        path=Path("a") / "b",
        nothing=float("nan"),
        number=np.float32(0.5),
        count=np.int64(3),
        table=TABLE,
        flag=True,
    )
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "schema": 1, "command": "x", "path": "a/b", "nothing": None, "number": 0.5, "count": 3, "flag": True,
        "table": [{"case": "a", "verdict": "faster", "x": 1}, {"case": "b", "verdict": "slower", "x": 2},
                  {"case": "c", "verdict": "unstable", "x": 3}],
    }  # fmt: skip


def test_what_else_is_printed_goes_to_stderr(capsys):
    options = argparse.Namespace(command="x", json=True)
    with output.kept_clean(options):
        print("a library's banner")
        output.emit(options, a=1)
    said = capsys.readouterr()
    assert json.loads(said.out)["a"] == 1
    assert said.err == "a library's banner\n"
    with (
        pytest.raises(UsageError, match="give one of them"),
        output.kept_clean(argparse.Namespace(json=True, format="csv")),
    ):
        pass


def test_into_a_pipe_a_table_is_markdown_without_an_escape(plain_environment, capsys):
    output.show_table(TABLE, None)
    said = capsys.readouterr().out
    assert said.startswith("| case ")
    assert "\x1b" not in said


def test_on_a_terminal_a_table_is_drawn_and_its_verdicts_are_coloured(plain_environment):
    plain_environment.setattr(sys, "stdout", Terminal())
    output.show_table(TABLE, None)
    said = sys.stdout.getvalue()
    assert "|" not in said
    assert "\x1b[32mfaster" in said
    assert "\x1b[31mslower" in said
    assert "\x1b[33munstable" in said
    plain_environment.setattr(sys, "stdout", Terminal())
    output.show_table(TABLE, "github")
    assert sys.stdout.getvalue().startswith("| case ")


@pytest.mark.parametrize(("variables", "terminal", "expected"), [
    ({}, True, True), ({}, False, False),
    ({"NO_COLOR": "1"}, True, False), ({"NO_COLOR": ""}, True, True),
    ({"FORCE_COLOR": "1"}, False, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ({"TERM": "dumb"}, True, False),
])  # fmt: skip
def test_colours_follow_the_conventions(plain_environment, variables, terminal, expected):
    for name, value in variables.items():
        plain_environment.setenv(name, value)
    plain_environment.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    assert output.coloured() is expected
    output.show("it holds, faster")
    output.show_table(TABLE, None)
    said = sys.stdout.getvalue()
    assert bool(ESCAPE.search(said)) is expected
    assert ESCAPE.sub("", said).startswith("it holds, faster\n")


def test_what_a_file_says_can_not_steer_the_terminal(plain_environment):
    plain_environment.setattr(sys, "stdout", Terminal())
    output.show_table(pd.DataFrame({"name": ["\x1b]0;title\x07 \x1b[2J"]}), None)
    output.show("evil \x1b[2J text")
    left = ESCAPE.sub("", sys.stdout.getvalue())
    assert "\x1b" not in left
    assert "\x07" not in left


def test_a_long_loop_says_how_long_it_will_take_and_a_short_one_nothing(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("prunebench.progress.time.monotonic", lambda: clock[0])
    said: list[str] = []
    quick = Loop(said.append, "plots", 100)
    for _ in range(100):
        clock[0] += 0.01
        quick.advance()
    assert said == []
    slow = Loop(said.append, "plots", 50)
    for _ in range(50):
        clock[0] += 1.0
        slow.advance()
    slow.close()
    assert said == [
        "prunebench: [2/50] plots; 48 s left",
        "prunebench: [23/50] plots; 27 s left",
        "prunebench: [44/50] plots; 6 s left",
    ]


def test_a_watched_loop_gives_what_it_was_given():
    assert list(output.watched([3, 1, 2], "numbers")) == [3, 1, 2]
