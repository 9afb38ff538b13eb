"""`prunebench doctor`: what is there, what isn't well, and the remedy. Exit code 1 where something needed is broken."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.commands.options import command
from prunebench.commands.output import emit, show

if TYPE_CHECKING:
    from prunebench.checks import Check

_WIDTH = 12


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "this machine: cores, SIMD path, how steadily it times, what is installed, what is missing"
    more = "Exit code 1 where something needed is broken; what is only off or less than ideal is said."
    doctor = command(commands, "doctor", help, run, ["prunebench doctor", "prunebench doctor --json"], more)
    doctor.add_argument("--data", metavar="DIR", help="folder of datasets to look into")
    doctor.add_argument("--store", metavar="DIR", help="folder of checkpoints to look into")


def run(options: argparse.Namespace) -> int:
    """Examine and print; returns the exit code."""
    from prunebench.checks import BROKEN, examine, worst

    root = settings.project_root()
    checks = examine(settings.store(options.store, root), settings.data(options.data, root), settings.results(None))
    status = worst(checks)
    if options.json:
        emit(options, status=status, checks=[asdict(check) for check in checks])
    else:
        show("\n".join(_lines(checks)))
    return 1 if status == BROKEN else 0


def _lines(checks: Sequence[Check]) -> list[str]:
    from prunebench.checks import BROKEN, OFF, WARNING

    lines = []
    for check in checks:
        topic = check.name if check.topic == "machine" and check.name != "cpu" else check.topic
        named = "" if check.topic in ("machine", "csr engine") else f"{check.name}: "
        said = f"{check.status}: " if check.status in (WARNING, BROKEN) else ""
        lines.append(f"{topic:<{_WIDTH - 1}}{named}{said}{check.found}")
        if check.remedy and check.status == OFF:
            lines[-1] += f"; {check.remedy}"
    wrong = [check for check in checks if check.status in (WARNING, BROKEN)]
    lines.append("")
    if not wrong:
        return [*lines, "all is well"]
    lines.append(f"{len(wrong)} to look at:")
    for check in wrong:
        lines += textwrap.wrap(
            f"{check.topic}, {check.name}: {check.remedy}", 110, initial_indent="  - ", subsequent_indent="    ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines
