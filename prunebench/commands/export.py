"""`prunebench export CHECKPOINT`: its options, and what they do."""

from __future__ import annotations

import argparse
from typing import Any

from prunebench import profiles
from prunebench.commands.options import command
from prunebench.commands.output import emit
from prunebench.errors import UsageError


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    examples = [
        "prunebench export lenet5.safetensors --model lenet5 --to lenet5.onnx",
        "prunebench export resnet18.safetensors --model resnet18 --to small.onnx --sparse-initializer",
    ]
    export = command(commands, "export", "a checkpoint as ONNX, its zeros left out where asked", run, examples)
    export.add_argument("checkpoint", metavar="FILE", help="a safetensors file, such as pb.save writes")
    export.add_argument("--model", required=True, metavar="NAME", help="the model that it belongs to")
    export.add_argument("--to", required=True, metavar="FILE", help="the ONNX file to write")
    export.add_argument("--input-shape", metavar="C,H,W", help="default 1,28,28 for LeNets, else the network's own")
    export.add_argument("--classes", metavar="N", help="default 10, or 1000 for torchvision's models")
    export.add_argument("--sparse-initializer", action="store_true", help="COO for weights over two thirds zero")


def run(options: argparse.Namespace) -> int:
    """Write the file and say how large it is; returns the exit code."""
    from prunebench.models.names import check_model
    from prunebench.questions import input_of

    shape, classes = input_of(check_model(options.model))
    if options.input_shape is not None:
        shape = _shape(options.input_shape)
    if options.classes is not None:
        classes = profiles.whole_number("--classes", options.classes, 1)
    import torch  # after what may be wrong with the words

    from prunebench import formats, models
    from prunebench.export import export_onnx

    model = models.build(options.model, shape, classes).eval()
    formats.load(options.checkpoint, model)
    size = export_onnx(model, torch.zeros(1, *shape), options.to, options.sparse_initializer)
    if options.json:
        emit(options, file=options.to, bytes=size)
    else:
        print(f"{size:,} bytes in {options.to}")
    return 0


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"--input-shape {text!r} is not channels,rows,columns; give three numbers such as 3,32,32")
    channels, rows, columns = (profiles.whole_number("--input-shape", part, 1) for part in parts)
    return channels, rows, columns
