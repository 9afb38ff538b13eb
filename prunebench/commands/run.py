"""`prunebench run`: one cell, trained, pruned, checked and measured. Exit code 1 where its status isn't ok."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from prunebench import profiles
from prunebench.commands import cells
from prunebench.commands.options import command
from prunebench.commands.output import emit, show, tell
from prunebench.errors import BackendUnavailable, UsageError
from prunebench.measuring import limits

if TYPE_CHECKING:
    from prunebench.cell import Case

# Option -> the grid's list; one value of each is taken.
_AXES = {
    "dataset": "datasets", "model": "models", "criterion": "criteria", "granularity": "granularities",
    "scope": "scopes", "schedule": "schedules", "sparsity": "sparsities", "backend": "backends",
    "batch-size": "batch_sizes", "seed": "seeds",
}  # fmt: skip
_DEFAULTS = {
    "datasets": ["digits"], "models": ["lenet300"], "criteria": ["l1"], "granularities": ["weight"],
    "scopes": ["global"], "schedules": ["agp"], "sparsities": ["0.9"], "backends": ["csr"], "batch_sizes": ["64"],
    "seeds": ["0"],
}  # fmt: skip
_EXAMPLES = [
    "prunebench run --model lenet5 --criterion l1 --sparsity 0.9",
    "prunebench run --model lenet300 --criterion none",
    "prunebench run --model resnet20 --granularity filter --backend compact --batch-size 1",
    "prunebench run --schedule linear --recipe default:rewind=weights --json",
]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    more = "`--criterion none` measures the unpruned network. What was trained is stored; a second run trains nothing."
    one = command(commands, "run", "one cell: train, prune, check, measure", run, _EXAMPLES, more)
    add_cell(one)
    one.add_argument("--threads", default="1", help="threads while measuring; default 1")
    one.add_argument("--timing-seconds", type=float, default=1.0, help="budget of the speed-up measurement")
    limits.add_to(one)


def add_cell(parser: argparse.ArgumentParser) -> None:
    """The options that name one cell, and how it is trained."""
    for name, axis in _AXES.items():
        cells.add_axis(parser, f"--{name}", axis, metavar="VALUE", help=f"default {_DEFAULTS[axis][0]}")
    cells.add_training(parser)


def asked_for(options: argparse.Namespace) -> list[Case]:
    """The case that the options name, and its controls."""
    axes = {
        axis: [given] if (given := getattr(options, axis)) is not None else _DEFAULTS[axis] for axis in _AXES.values()
    }
    if axes["criteria"] == ["none"]:
        axes |= {"criteria": ["l1"], "sparsities": ["0"]}
    unpruned, *asked = cells.plan(options, axes, None).cases()
    return asked or [unpruned]


def run(options: argparse.Namespace) -> int:
    """Make and measure the cell; returns the exit code."""
    from prunebench import backends, machine
    from prunebench.measuring.grid import Bench
    from prunebench.measuring.isolated import isolated
    from prunebench.progress import Bar

    if not 0.0 <= options.timing_seconds < float("inf"):
        raise UsageError(f"--timing-seconds {options.timing_seconds} can't be used; give seconds of at least 0")
    threads = min(profiles.whole_number("--threads", options.threads, 1), machine.cores())
    asked = asked_for(options)
    limit = limits.limits_of(options.isolate, options.isolate_memory, options.isolate_seconds)
    reason = backends.unavailable(asked[0].backend) if limit is None else None
    if reason is not None:
        raise BackendUnavailable(f"backend {asked[0].backend!r} is off: {reason}")
    progress = Bar(tell, options.timing_seconds)
    lab = cells.lab(options, progress)
    progress.announce(asked, lab if limit is None else None)
    bench = isolated(Bench(lab, threads, options.timing_seconds), "grid", limit)
    measured = []
    for case in asked:
        measured.append({"id": case.id, **bench.measure(case).facts})
        if not options.json:
            show(_summary(measured[-1]))
    if options.json:
        emit(options, cases=measured)
    return 0 if all(facts["status"] == "ok" for facts in measured) else 1


def _summary(f: dict[str, Any]) -> str:
    if f["status"] != "ok":
        return f"{f['id']}\n  {f['status']}: {f['reason']}"
    return "\n".join([
        f["id"],
        f"  accuracy     {100 * f['accuracy']:.2f} % (unpruned {100 * f['accuracy_dense']:.2f} %)",
        f"  nonzeros     {f['nonzeros']:,} of {f['prunable']:,}; multiply-adds {f['macs']:,} of {f['macs_dense']:,}",
        f"  on disk      {f['disk_bytes']:,} bytes, {f['dense_disk_bytes'] / f['disk_bytes']:.1f}× smaller than dense",
        f"  in memory    {f['resident_bytes']:,} bytes of weights",
        f"  latency      {1000 * f['latency_seconds']:.3g} ms per batch of {f['batch_size']}, {f['threads']} thread(s)",
        f"  speed-up     {f['speedup']:.2f}× [{f['speedup_low']:.2f}, {f['speedup_high']:.2f}] over {f['baseline']}: "
        f"{f['verdict']}",
        f"  checked      relative error {f['relative_error']:.1e} against float64",
    ])  # fmt: skip
