"""`prunebench pack IN OUT` stores a checkpoint smaller and says what it lost; `--compare` tries every way there is."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset

BATCH = 64


@dataclass(frozen=True)
class _Network:
    """A model, a batch that it takes, and the dataset that was named."""

    model: nn.Module
    example: Tensor
    data: Dataset | None = None


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    pack = commands.add_parser("pack", help="store a checkpoint smaller and say what it lost; --compare: every way")
    pack.add_argument("files", nargs="*", metavar="FILE", help="IN OUT; with --compare IN, or none for random weights")
    pack.add_argument("--format", default="bitmask", help="dense, bitmask, csr or delta; default bitmask")
    pack.add_argument("--values", metavar="KIND", help="fp32, fp16, bf16 or int8; default as they are")
    pack.add_argument("--model", metavar="NAME", help="the network that IN's weights are of: compares its outputs")
    pack.add_argument("--dataset", metavar="NAME", help="its dataset: accuracy on the test split before and after")
    pack.add_argument("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    pack.add_argument("--compare", action="store_true", help="a table of every format and kind of values, and others")
    pack.add_argument("--sparsity", default="0.9", help="of the random weights that --compare --model alone stores")
    pack.add_argument("--timing-seconds", type=float, default=0.0, help="with --compare: time loading; default 0, none")
    pack.add_argument("--table", default="github", metavar="FORMAT", help="github, csv, html or latex")
    pack.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pack, or print the comparison; returns the exit code."""
    from prunebench.formats.version2 import check_names
    from prunebench.tables.rendering import FORMATS

    check_names(options.format, options.values)
    if options.table not in FORMATS:
        raise unknown("format", options.table, FORMATS)
    if options.dataset is not None and options.model is None:
        raise UsageError("--dataset asks for an accuracy; give --model NAME, the network that the weights are of")
    if not 0.0 <= options.timing_seconds < float("inf"):
        raise UsageError(f"--timing-seconds {options.timing_seconds} can't be used; give seconds of at least 0")
    if options.compare:
        return _compare(options)
    if len(options.files) != 2:
        raise UsageError(f"pack takes IN and OUT, {len(options.files)} given; or --compare IN")
    return _pack(options, *options.files)


def _pack(options: argparse.Namespace, source: str, target: str) -> int:
    from prunebench import formats
    from prunebench.formats.torch_files import read_state

    state = read_state(source)
    network = _network(options, state)  # before anything is written: a mistake leaves no file
    before = Path(source).stat().st_size
    size = formats.save(state, target, options.format, options.values)
    print(f"{target}: {size:,} bytes, {before / size:.1f}× smaller than {source} ({before:,})")
    print(_weights_told(state, formats.load(target)))
    if network is not None:
        print(_outputs_told(options, network, target))
    return 0


def _weights_told(before: dict[str, Tensor], after: dict[str, Tensor]) -> str:
    """‖w' − w‖ / ‖w‖ over all tensors, and the tensor where it is largest."""
    worst, name, difference, norm = 0.0, None, 0.0, 0.0
    for key, tensor in before.items():
        if tensor.is_floating_point():
            own, change = (float(t.double().norm()) for t in (tensor, after[key].double() - tensor.double()))
            difference, norm = difference + change**2, norm + own**2
            if change > worst * own:
                worst, name = change / own, key
    if name is None:
        return "weights   unchanged"
    return f"weights   relative error {(difference / norm) ** 0.5:.1e}, the largest {worst:.1e} in {name}"


def _outputs_told(options: argparse.Namespace, network: _Network, target: str) -> str:
    from prunebench import formats
    from prunebench.reference import Reference
    from prunebench.training.loop import accuracy

    model, data = network.model, network.data
    reference = Reference(model, network.example)
    before = None if data is None else accuracy(model, data, data.test)
    formats.load(target, model)
    what = f"images of {options.dataset}" if data is not None else "random inputs"
    told = f"outputs   relative error {reference.error(model):.1e} against float64, on {what}"
    if data is None or before is None:
        return told
    after, count = accuracy(model, data, data.test), len(data.test)
    return (
        f"{told}\naccuracy  {100 * before:.2f} % → {100 * after:.2f} % of {count:,} test images, loaded from {target}"
    )


def _network(options: argparse.Namespace, state: dict[str, Tensor] | None) -> _Network | None:
    """The named model with these weights, or with random ones; UsageError where the weights are of another one."""
    if options.model is None:
        return None
    from prunebench import datasets, models
    from prunebench.measuring.arms import network_input, pruned_copy, random_network
    from prunebench.questions import input_of

    models.check_model(options.model)
    data = None
    if options.dataset is not None:
        data = datasets.load(options.dataset, settings.data(options.data, settings.project_root()))
    if state is None:
        from prunebench.cell import check_sparsity

        model = pruned_copy(random_network(options.model), check_sparsity(options.sparsity))
        return _Network(model, network_input(options.model, BATCH if input_of(options.model)[0][1] < 100 else 2))
    shape, classes = input_of(options.model)
    if data is not None:
        (channels, height, width), classes = data.test.images.shape[1:], data.classes
        shape = (channels, height, width)
    model = models.build(options.model, shape, classes).eval().requires_grad_(False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights are not of {options.model} for {shape} images ({words})") from error
    if data is None:
        return _Network(model, network_input(options.model, BATCH if shape[1] < 100 else 2))
    return _Network(model, data.normalise(data.test.images[:BATCH]), data)


def _compare(options: argparse.Namespace) -> int:
    from prunebench import machine
    from prunebench.formats.torch_files import read_state
    from prunebench.measuring.packing import ways
    from prunebench.tables.packing import packing_table
    from prunebench.tables.rendering import render

    if len(options.files) > 1 or (not options.files and options.model is None):
        raise UsageError("pack --compare takes one file, or none and --model NAME for random weights")
    if not options.files and options.dataset is not None:
        raise UsageError("random weights have no accuracy; name a file beside --dataset, or leave --dataset out")
    state = read_state(options.files[0]) if options.files else None
    network = _network(options, state)
    with machine.threads(1):
        if network is None:
            rows = ways(state or {})  # without a model a file was named
        else:
            rows = ways(
                network.model.state_dict(), network.model, network.example, network.data, options.timing_seconds
            )
    print(render(packing_table(rows), options.table), end="")
    return 0
