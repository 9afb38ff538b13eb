"""`prunebench compile MODEL`: somebody's own network on this machine. Exit code 1 where the engine errs."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunebench.commands.options import command
from prunebench.commands.output import emit
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.measuring.own import Wanted
    from prunebench.sources import Source


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    from prunebench.sources import KINDS

    examples = [
        "prunebench compile torchvision:resnet50",
        "prunebench compile weights.safetensors --model torchvision:resnet18 --input 1,3,224,224",
        "prunebench compile timm:resnet18 --sparsities 0.9 --peers",
    ]
    own = command(commands, "compile", "your own model: is it faster pruned, on this machine?", run, examples)
    own.add_argument("source", metavar="MODEL", help=KINDS)
    own.add_argument("--model", help="the model that a checkpoint's weights are for")
    own.add_argument("--input", metavar="SHAPE", help="of the input, for example 1,3,224,224; default the model's own")
    own.add_argument("--batch-size", metavar="N", help="default 1, or what --input says")
    own.add_argument("--sparsities", metavar="LIST", default="0.8,0.9,0.95", help="default 0.8,0.9,0.95")
    own.add_argument("--criterion", default="l1", help="default l1; one that needs no data")
    own.add_argument("--scope", help="default global; layerwise where the weights are random, whose sizes say nothing")
    own.add_argument("--threads", default="1", help="default 1")
    own.add_argument("--seconds", default="5", help="of timing; default 5")
    own.add_argument("--peers", action="store_true", help="torch.compile, ONNX Runtime and OpenVINO as well")


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    wanted = _wanted(options)
    batch = None if options.batch_size is None else _whole("--batch-size", options.batch_size)
    shape = None if options.input is None else _shape(options.input, batch)
    import torch

    from prunebench import machine, sources
    from prunebench.commands.steps import Steps
    from prunebench.engine.build_info import build_info
    from prunebench.measuring.own import measure
    from prunebench.tables.own import ACCURACY, own_text

    with Steps() as steps:
        steps.begins(f"loading {options.source}")
        source = sources.load(options.source, options.model)
        x = torch.randn(shape or _default(source, batch or 1), generator=torch.Generator().manual_seed(0))
        if options.scope is None and not source.trained:
            wanted = replace(wanted, scope="layerwise")
        report = measure(source.model, x, wanted, steps.begins)
    here = machine.describe(build_info())
    if options.json:
        facts = {"model": source.text, "trained": source.trained, **report.as_dict()}
        emit(options, **facts, machine=here, accuracy=None, note=ACCURACY)
    else:
        print(own_text(report, source.text, f"{here['cpu']} (machine {here['id']})", source.trained), end="")
    failed = [way for way in report.sparse if way.status == "failed"]
    for way in failed:
        print(f"prunebench: {way.name} {way.reason}; please report it", file=sys.stderr)
    return 1 if failed else 0


def _wanted(options: argparse.Namespace) -> Wanted:
    """The options checked, before anything is loaded."""
    from prunebench import machine
    from prunebench.cell import check_sparsity
    from prunebench.measuring.own import Wanted
    from prunebench.registry import check

    listed = [text.strip() for text in options.sparsities.split(",") if text.strip()]
    if not listed:
        raise UsageError("--sparsities names none; give for example 0.8,0.9,0.95")
    try:
        seconds = float(options.seconds)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds {options.seconds!r} can't be used; give a number above 0, at most 3600")
    return Wanted(
        tuple(check_sparsity(text) for text in listed),
        check("criteria", options.criterion),
        check("scopes", options.scope or "global"),
        min(_whole("--threads", options.threads), machine.cores()),
        seconds,
        options.peers,
    )


def _whole(name: str, text: str) -> int:
    from prunebench.profiles import whole_number

    return whole_number(name, text, 1)


def _shape(text: str, batch: int | None) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise UsageError(f"--input {text!r} is no shape; give whole numbers of at least 1, for example 1,3,224,224")
    if batch is not None and batch != shape[0]:
        if shape[0] != 1:
            raise UsageError(f"--input {text} and --batch-size {batch} disagree; give one of them")
        shape = (batch, *shape[1:])
    if math.prod(shape) > 1 << 30:
        raise UsageError(f"--input {text} is {math.prod(shape):,} numbers; give fewer than {1 << 30:,}")
    return shape


def _default(source: Source, batch: int) -> tuple[int, ...]:
    if source.sample is None:
        raise UsageError(f"nothing says what {source.text} takes; give --input, for example 1,3,224,224")
    return (batch, *source.sample)
