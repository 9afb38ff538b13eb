"""The `prunebench` command: one file per subcommand. Exit codes: 0 done, 1 a failed check, 2 a usage error."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from prunebench import __version__, settings
from prunebench.commands import (
    claims,
    compare,
    completion,
    doctor,
    estimate,
    export,
    inspect,
    pack,
    plots,
    report,
    run,
    store,
    sweep,
)
from prunebench.commands import compile as compiling
from prunebench.commands import list as listing
from prunebench.commands import tables as tabling
from prunebench.commands import unpack as unpacking
from prunebench.commands.output import kept_clean
from prunebench.errors import BackendUnavailable, PrunebenchError, UsageError
from prunebench.untrusted import plain_line

# In the order of --help.
COMMANDS = (
    listing, run, sweep, estimate, compiling, tabling, claims, plots, compare, report, store, pack, unpacking, inspect,
    export, doctor, completion,
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Refused here, not by the outermost parser, which knows neither the command's options nor its help.
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            hints = [_near(word.partition("=")[0], self._option_string_actions) for word in extra]
            self.error(f"unrecognized arguments: {' '.join(extra)}{''.join(hints)}")
        return found, extra

    def error(self, message: str) -> NoReturn:
        given = re.search(r"invalid choice: '(.*?)' \(choose from", message)
        choices = {name for action in self._actions for name in action.choices or ()}
        raise UsageError(f"{message}{_near(given[1], choices) if given else ''}; see '{self.prog} --help'")


def _near(word: str, known: Iterable[str]) -> str:
    """What was probably meant by a word that isn't known, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        parser = _parser()
        completion.answer(parser)
        options = parser.parse_args(arguments)
        with kept_clean(options):
            return int(options.run(options))
    except (UsageError, BackendUnavailable) as error:
        print(f"prunebench: {plain_line(error)}", file=sys.stderr)
        return 2
    except PrunebenchError as error:
        print(f"prunebench: {plain_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, OSError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"prunebench: {settings.INTERRUPTED}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prunebench",
        description="Does pruning make it smaller and faster at the same accuracy, here?",
        epilog="Exit codes: 0 done, 1 a failed check, 2 a usage error.\nprunebench COMMAND --help shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"prunebench {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
