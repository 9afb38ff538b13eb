"""The progress line: nothing for what is quick, whole lines without a terminal, one changing line on one."""

import io

import pytest
from rich.console import Console

from prunebench.commands import steps
from prunebench.commands.steps import Steps


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    return now


def test_what_is_quick_says_nothing(clock):
    out = io.StringIO()
    with Steps(Console(file=out)) as said:
        said.begins("loading")
        clock[0] += 1.9
        said.begins("timing")
    assert out.getvalue() == ""


def test_without_a_terminal_each_later_step_is_a_whole_line(clock):
    out = io.StringIO()
    with Steps(Console(file=out, width=20)) as said:
        said.begins("loading")
        clock[0] += 3
        said.begins("compiling [90 %] of a network with a long name")
        clock[0] += 4
        said.begins("timing")
    assert out.getvalue().splitlines() == [
        "prunebench: compiling [90 %] of a network with a long name (3 s so far)",
        "prunebench: timing (7 s so far)",
    ]


def test_on_a_terminal_one_line_changes_and_goes(monkeypatch):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60)
    with Steps(console) as said:
        said.begins("loading")
        said.begins("timing")
        said._bar.refresh()
        assert "timing" in out.getvalue()
        assert len(said._bar.tasks) == 1
    assert "so far" not in out.getvalue()
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back
