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
    found = {group: known(group) for group in ([options.group] if options.group else SHOWN)}
    if options.json:
        emit(options, groups=found)
    elif options.group:
        print("\n".join(found[options.group]))
    else:
        print("\n".join(f"{group}: {', '.join(names)}" for group, names in found.items()))
    return 0
