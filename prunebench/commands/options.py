"""What commands take: a command with its examples, the options that several share, and what a shell completes."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prunebench import profiles, settings
from prunebench.errors import UsageError

Completer = Callable[..., Iterable[str]]


def command(
    commands: Any,
    name: str,
    help: str,
    run: Callable[[argparse.Namespace], int],
    examples: Sequence[str],
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a subcommand with --json to a parser's commands; its --help ends with examples, one command line each.

    more: further lines of its description. `run` gets the options and returns the exit code.
    """
    from prunebench.commands.output import add_json

    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(f"{help[0].upper()}{help[1:]}.{' ' if more else ''}{more}", 100),
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, command=name)
    add_json(parser)
    return parser


def add_runs(parser: argparse.ArgumentParser, help: str) -> None:
    """RUN…: saved runs by name, number or path."""
    completed(parser.add_argument("runs", nargs="*", metavar="RUN", help=help), saved_runs)


def add_results(parser: argparse.ArgumentParser, what: str = "folder with runs/") -> None:
    """--results DIR."""
    parser.add_argument("--results", metavar="DIR", help=f"{what}; default results of the project")


def add_format(parser: argparse.ArgumentParser) -> None:
    """--format: None draws for a terminal and writes Markdown into a pipe; see output.show_table."""
    from prunebench.commands.output import PLAIN_FORMATS

    help = "how to print: github, csv, html or latex; default a drawn table on a terminal, else github"
    completed(parser.add_argument("--format", help=help), lambda **_: PLAIN_FORMATS)


def completed(action: argparse.Action, completer: Completer) -> argparse.Action:
    """The action with what a shell offers for its value: argcomplete looks for this attribute."""
    action.completer = completer  # type: ignore[attr-defined]
    return action


def names_of(group: str) -> Completer:
    """Completes a name of a registry's group, of profiles or of recipes, or the last one of a comma-separated list."""

    def complete(prefix: str = "", **_: Any) -> list[str]:
        before, comma, _last = prefix.rpartition(",")
        return [before + comma + name for name in known(group)]

    return complete


def known(group: str) -> list[str]:
    """Every name of a group; imports no torch."""
    from prunebench.models.names import known_models
    from prunebench.registry import names

    special = {"models": known_models, "profiles": profiles.names, "recipes": profiles.recipe_names}
    return special.get(group, lambda: names(group))()


def saved_runs(parsed_args: argparse.Namespace | None = None, **_: Any) -> list[str]:
    """Completes the name of a saved run."""
    from prunebench.runs import run_files, run_names

    folder = settings.results(getattr(parsed_args, "results", None)) / "runs"
    return sorted({name for path in run_files(folder) for name in run_names(path)[:1]})


def number(flag: str, text: str | None, low: float = 0.0) -> float | None:
    """An option's finite number of at least `low`, None where it isn't given; UsageError for anything else."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number; give one of at least {low:g}") from None
    if not low <= value < math.inf:
        raise UsageError(f"{flag} {text} can't be used; give a number of at least {low:g}")
    return value
