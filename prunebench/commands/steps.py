"""What a command is doing now: a line that turns on a terminal, elsewhere a line per step, after two quiet seconds."""

from __future__ import annotations

import time
from typing import Any

QUIET_SECONDS = 2.0


class Steps:
    """`begins` at every step. On a terminal one line that changes and goes in the end, with the seconds so far.

    Elsewhere (a file, CI) whole lines, and none for what was over within two seconds of the start.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.console = console or Console(stderr=True)
        self._start = time.monotonic()
        self._bar: Any = None
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
        self._task: Any = None

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begins(self, what: str) -> None:
        """What comes next, in a few words."""
        from rich.markup import escape

        if self._bar is None:
            spent = time.monotonic() - self._start
            if spent >= QUIET_SECONDS:
                self.console.print(
                    f"prunebench: {escape(what)} ({spent:.0f} s so far)", highlight=False, soft_wrap=True
                )
        elif self._task is None:
            self._task = self._bar.add_task(escape(what), total=None)
        else:
            self._bar.update(self._task, description=escape(what))
