"""`prunebench doctor`: this machine, what is installed, what is missing."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench import settings
from prunebench.commands.options import command
from prunebench.commands.output import emit


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "this machine: cores, threads, SIMD path, what is missing"
    command(commands, "doctor", help, run, ["prunebench doctor", "prunebench doctor --json"])


def run(options: argparse.Namespace) -> int:
    """Print what is found; returns the exit code."""
    from prunebench import backends, machine, registry
    from prunebench.engine.build_info import build_info

    facts = machine.describe(build_info())
    if options.json:
        emit(options, machine=facts)
        return 0
    print(
        f"machine    {facts['id']}: {facts['cpu']}, {facts['cores']} cores, {facts['architecture']} {facts['system']}"
    )
    if facts["memory_bytes"]:
        print(f"memory     {facts['memory_bytes'] / 2**30:.1f} GiB")
    print("versions   " + ", ".join(f"{k} {v}" for k, v in machine.versions().items()))
    engine = facts["engine"]
    print(f"csr engine {'off: ' + engine['off'] if 'off' in engine else engine['isa']}")
    for name in registry.names("backends"):
        reason = backends.unavailable(name)
        print(f"backend    {name}: {'off: ' + reason if reason else 'ready'}")
    root = settings.project_root()
    print(f"store      {settings.store(None, root)}")
    print(f"data       {settings.data(None, root)}")
    return 0
