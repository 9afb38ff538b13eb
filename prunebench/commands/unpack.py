"""`prunebench unpack IN OUT`: a packed checkpoint as a plain safetensors file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prunebench.commands.options import command
from prunebench.commands.output import emit


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    what = "a packed checkpoint as plain safetensors that anything reads"
    unpack = command(commands, "unpack", what, run, ["prunebench unpack small.safetensors dense.safetensors"])
    unpack.add_argument("input", metavar="IN", help="a checkpoint: ours, safetensors, or torch.save's of a state dict")
    unpack.add_argument("output", metavar="OUT", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Write the dense file; returns the exit code."""
    from prunebench import formats
    from prunebench.formats.torch_files import read_state

    size = formats.save(read_state(options.input), options.output, "dense")
    before = Path(options.input).stat().st_size
    if options.json:
        emit(options, file=options.output, bytes=size, bytes_before=before)
    else:
        print(f"{options.output}: {size:,} bytes, unpacked from {before:,}")
    return 0
