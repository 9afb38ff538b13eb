"""`prunebench list [GROUP]`: every name that can be used. Imports no torch."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench.commands.options import command, completed, known
from prunebench.commands.output import emit
from prunebench.errors import unknown
from prunebench.registry import GROUPS

SHOWN = (*GROUPS, "profiles", "recipes")


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    examples = ["prunebench list", "prunebench list criteria", "prunebench list models --json"]
    listing = command(commands, "list", "names that can be used", run, examples)
    group = listing.add_argument("group", nargs="?", help="criteria, models, …; all without it")
    completed(group, lambda **_: SHOWN)


def run(options: argparse.Namespace) -> int:
    """Print the names; returns the exit code."""
    if options.group is not None and options.group not in SHOWN:
        raise unknown("group", options.group, SHOWN)
    from prunebench import backends

    found = {group: known(group) for group in ([options.group] if options.group else SHOWN)}
    off = {n: why for n in found.get("backends", ()) if (why := backends.unavailable(n)) is not None}
    if options.json:
        emit(options, groups=found, off=off)
    elif options.group:
        print("\n".join(_with_reasons(found[options.group], off, ": off: {}")))
    else:
        shown = {group: _with_reasons(names, off, " (off)") for group, names in found.items()}
        print("\n".join(f"{group}: {', '.join(names)}" for group, names in shown.items()))
    return 0


def _with_reasons(names: list[str], off: dict[str, str], form: str) -> list[str]:
    """Backends that can't run here marked as such; every other name as it is."""
    return [name + form.format(off[name]) if name in off else name for name in names]
