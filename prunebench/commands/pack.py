"""`prunebench pack IN OUT` stores a checkpoint smaller and says what it lost; `--compare` tries every way there is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.commands.options import command
from prunebench.commands.output import emit, show_table
from prunebench.errors import UsageError, unknown
from prunebench.state_dicts import load_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.datasets.base import Dataset

BATCH = 64


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    examples = [
        "prunebench pack model.safetensors small.safetensors --format bitmask --values fp16",
        "prunebench pack model.safetensors small.safetensors --values int8 --model lenet5 --dataset mnist",
        "prunebench pack --compare model.safetensors",
        "prunebench pack --compare --model resnet50 --sparsity 0.9",
    ]
    what = "store a checkpoint smaller and say what it lost; --compare: every way"
    pack = command(commands, "pack", what, run, examples)
    pack.add_argument("files", nargs="*", metavar="FILE", help="IN OUT; with --compare IN, or none for random weights")
    pack.add_argument(
        "--format", dest="encoding", default="bitmask", help="dense, bitmask, csr or delta; default bitmask"
    )
    pack.add_argument("--values", metavar="KIND", help="fp32, fp16, bf16 or int8; default as they are")
    pack.add_argument("--model", metavar="NAME", help="the network that IN's weights are of: compares its outputs")
    pack.add_argument("--dataset", metavar="NAME", help="its dataset: accuracy on the test split before and after")
    pack.add_argument("--data", metavar="DIR", help="folder of datasets; default PRUNEBENCH_DATA or .prunebench/data")
    pack.add_argument("--compare", action="store_true", help="a table of every format and kind of values, and others")
    pack.add_argument("--sparsity", default="0.9", help="of the random weights that --compare --model alone stores")
    pack.add_argument("--timing-seconds", type=float, default=0.0, help="with --compare: time loading; default 0, none")
    pack.add_argument("--table", metavar="FORMAT", help="how to print: github, csv, html or latex")


def run(options: argparse.Namespace) -> int:
    """Pack, or print the comparison; returns the exit code."""
    from prunebench.formats.version2 import check_names
    from prunebench.tables.rendering import FORMATS

    check_names(options.encoding, options.values)
    if options.table is not None and options.table not in FORMATS:
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
    model, x, data = _network(options, state)  # before anything is written: a mistake leaves no file
    before = Path(source).stat().st_size
    size = formats.save(state, target, options.encoding, options.values)
    found = _weights(state, formats.load(target))
    if model is not None:
        found |= _outputs(model, x, data, target)
    if options.json:
        emit(options, file=target, bytes=size, bytes_before=before, **found)
        return 0
    print(f"{target}: {size:,} bytes, {before / size:.1f}× smaller than {source} ({before:,})")
    worst = f", the largest {found['largest_weight_error']:.1e} in {found['in_tensor']}" if found["in_tensor"] else ""
    print(f"weights   relative error {found['weight_error']:.1e}{worst}" if worst else "weights   unchanged")
    if model is not None:
        on = "random inputs" if data is None else f"images of {options.dataset}"
        print(f"outputs   relative error {found['output_error']:.1e} against float64, on {on}")
    if data is not None:
        shares = f"{100 * found['accuracy_before']:.2f} % → {100 * found['accuracy']:.2f} %"
        print(f"accuracy  {shares} of {found['test_images']:,} test images, loaded from {target}")
    return 0


def _weights(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Any]:
    """‖w' − w‖ / ‖w‖ over all tensors, and the tensor where it is largest."""
    worst, name, difference, norm = 0.0, None, 0.0, 0.0
    for key, tensor in before.items():
        if tensor.is_floating_point():
            own, change = (float(t.double().norm()) for t in (tensor, after[key].double() - tensor.double()))
            difference, norm = difference + change**2, norm + own**2
            if change > worst * own:
                worst, name = change / own, key
    return {
        "weight_error": (difference / norm) ** 0.5 if norm else 0.0,
        "largest_weight_error": worst,
        "in_tensor": name,
    }


def _outputs(model: nn.Module, x: Tensor | None, data: Dataset | None, target: str) -> dict[str, Any]:
    """The outputs' relative error against float64, and with a dataset the test accuracy before and after."""
    from prunebench import formats
    from prunebench.reference import Reference
    from prunebench.training.loop import accuracy

    assert x is not None
    reference = Reference(model, x)
    before = None if data is None else accuracy(model, data, data.test)
    formats.load(target, model)
    found: dict[str, Any] = {"output_error": reference.error(model)}
    if data is not None:
        found |= {"accuracy_before": before, "accuracy": accuracy(model, data, data.test),
                  "test_images": len(data.test)}  # fmt: skip
    return found


def _network(
    options: argparse.Namespace, state: dict[str, Tensor] | None
) -> tuple[nn.Module | None, Tensor | None, Dataset | None] | Any:
    """(the named model with these weights, a batch, the dataset); UsageError where the weights are of another one."""
    if options.model is None:
        return None, None, None
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
        return model, network_input(options.model, BATCH if input_of(options.model)[0][1] < 100 else 2), None
    shape, classes = input_of(options.model) if data is None else (data.input_shape, data.classes)
    model = models.build(options.model, shape, classes).eval().requires_grad_(False)
    try:
        load_state(model, state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights are not of {options.model} for {shape} images ({words})") from error
    if data is None:
        return model, network_input(options.model, BATCH if shape[1] < 100 else 2), None
    return model, data.normalise(data.test.images[:BATCH]), data


def _compare(options: argparse.Namespace) -> int:
    from prunebench import machine
    from prunebench.formats.torch_files import read_state
    from prunebench.measuring.packing import ways
    from prunebench.tables.packing import packing_table

    if len(options.files) > 1 or (not options.files and options.model is None):
        raise UsageError("pack --compare takes one file, or none and --model NAME for random weights")
    if not options.files and options.dataset is not None:
        raise UsageError("random weights have no accuracy; name a file beside --dataset, or leave --dataset out")
    state = read_state(options.files[0]) if options.files else None
    model, x, data = _network(options, state)
    with machine.threads(1):
        rows = ways(state or (model.state_dict() if model else {}), model, x, data, options.timing_seconds)
    if options.json:
        emit(options, ways=rows)
    else:
        show_table(packing_table(rows), options.table)
    return 0
