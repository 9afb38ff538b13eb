"""`prunebench unpack IN OUT`: a packed checkpoint as a plain safetensors file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    unpack = commands.add_parser("unpack", help="a packed checkpoint as plain safetensors that anything reads")
    unpack.add_argument("input", metavar="IN", help="a checkpoint: ours, safetensors, or torch.save's of a state dict")
    unpack.add_argument("output", metavar="OUT", help="the file to write")
    unpack.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the dense file; returns the exit code."""
    from prunebench import formats
    from prunebench.formats.torch_files import read_state

    size = formats.save(read_state(options.input), options.output, "dense")
    print(f"{options.output}: {size:,} bytes, unpacked from {Path(options.input).stat().st_size:,}")
    return 0
