"""`prunebench inspect FILE`: what a checkpoint holds, tensor by tensor, without decoding it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prunebench.commands.options import command
from prunebench.commands.output import emit


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    examples = ["prunebench inspect small.safetensors", "prunebench inspect small.safetensors --json"]
    what = "a checkpoint's tensors: shape, encoding, sparsity, bytes"
    inspect = command(commands, "inspect", what, run, examples)
    inspect.add_argument("file", metavar="FILE", help="a checkpoint of prunebench or any safetensors file")


def run(options: argparse.Namespace) -> int:
    """Print the tensors; returns the exit code."""
    import pandas as pd

    from prunebench import formats
    from prunebench.formats.sizes import tensor_rows
    from prunebench.tables.rendering import render

    checkpoint = formats.read(options.file)
    rows = tensor_rows(checkpoint)
    size = Path(options.file).stat().st_size
    if options.json:
        emit(options, format=checkpoint.schema, bytes=size, tensors=rows)
        return 0
    if rows:
        print(render(pd.DataFrame([_shown(row) for row in rows]), "github"), end="")
    kind = "a safetensors file of others" if checkpoint.schema is None else f"schema {checkpoint.schema}"
    count, nonzeros = (sum(row[key] for row in rows) for key in ("count", "nonzeros"))
    header = size - sum(row["bytes"] for row in rows)
    sparsity = f"{100 * (1 - nonzeros / count):.2f} % zero" if count else "nothing in them"
    print(f"{size:,} bytes ({header:,} of them header), {kind}; {len(rows)} tensors, {count:,} numbers, {sparsity}")
    return 0


def _shown(row: dict[str, Any]) -> dict[str, str]:
    sparsity, bits = row["sparsity"], row["bits_per_nonzero"]
    return {
        "tensor": row["name"],
        "shape": "×".join(map(str, row["shape"])) or "scalar",
        "dtype": row["dtype"],
        "encoding": row["encoding"],
        "values": row["values"],
        "nonzeros": f"{row['nonzeros']:,}",
        "sparsity": "–" if sparsity is None else f"{100 * sparsity:.2f} %",
        "bytes": f"{row['bytes']:,}",
        "bits per nonzero": "–" if bits is None else f"{bits:.1f}",
    }
