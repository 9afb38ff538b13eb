"""`prunebench completion SHELL`: the lines that make a shell complete commands, options and names."""

from __future__ import annotations

import argparse
import os
from typing import Any

from prunebench.commands.options import command, completed
from prunebench.commands.output import emit
from prunebench.errors import UsageError, unknown

SHELLS = ("bash", "zsh", "fish")
_WHERE = {
    "bash": 'put this into ~/.bashrc: eval "$(prunebench completion bash)"',
    "zsh": 'put this into ~/.zshrc, after compinit: eval "$(prunebench completion zsh)"',
    "fish": "put this into ~/.config/fish/config.fish: prunebench completion fish | source",
}
_MARK = "_ARGCOMPLETE"  # set by the shell's lines when they ask


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "lines that make bash, zsh or fish complete commands, options and names"
    more = "Names of criteria, models, saved runs and so on are asked for at each TAB, so plugins are among them."
    parser = command(commands, "completion", help, run, [f"prunebench completion {shell}" for shell in SHELLS], more)
    completed(parser.add_argument("shell", metavar="SHELL", help="bash, zsh or fish"), lambda **_: SHELLS)


def run(options: argparse.Namespace) -> int:
    """Print the lines; returns the exit code."""
    if options.shell not in SHELLS:
        raise unknown("shell", options.shell, SHELLS, "or complete by hand: prunebench list")
    try:
        import argcomplete
    except ImportError:
        raise UsageError("completion needs argcomplete, which isn't installed: pip install argcomplete") from None
    code = argcomplete.shellcode(["prunebench"], shell=options.shell)
    if options.json:
        emit(options, shell=options.shell, code=code, remedy=_WHERE[options.shell])
    else:
        print(f"# {_WHERE[options.shell]}\n{code}")
    return 0


def answer(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks at a TAB, answer it and exit; else nothing, and argcomplete isn't imported."""
    if _MARK not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)
