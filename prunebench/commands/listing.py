"""`prunebench list [GROUP]`: its options, and what they do."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench import profiles
from prunebench.errors import unknown


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    listing = commands.add_parser("list", help="names that can be used, and which backends are off")
    listing.add_argument("group", nargs="?", help="criteria, models, …; all without it")
    listing.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the names, one a line where a group is given; returns the exit code."""
    from prunebench.models.names import known_models
    from prunebench.registry import GROUPS, names

    if options.group is not None and options.group not in (*GROUPS, "profiles", "recipes"):
        raise unknown("group", options.group, [*GROUPS, "profiles", "recipes"])
    for group in [options.group] if options.group else [*GROUPS, "profiles", "recipes"]:
        found = {"models": known_models, "profiles": profiles.names, "recipes": profiles.recipe_names}.get(
            group, lambda g=group: names(g)
        )()
        if group == "backends":
            found = _with_reasons(found, in_full=options.group is not None)
        print("\n".join(found) if options.group else f"{group}: {', '.join(found)}")
    return 0


def _with_reasons(names: list[str], in_full: bool) -> list[str]:
    """Backends that can't run here marked as such; the others stay bare names."""
    from prunebench import backends

    reasons = {name: backends.unavailable(name) for name in names}
    return [f"{n}: off: {why}" if why and in_full else f"{n} (off)" if why else n for n, why in reasons.items()]
