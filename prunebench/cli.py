"""The `prunebench` command: one function per subcommand. Exit codes: 0 done, 1 a failed check, 2 a usage error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from prunebench import __version__, profiles, settings
from prunebench.commands import compare, estimate, plots, report, sweep
from prunebench.commands.grids import add_lengths, add_places, lab_of, plan_of, stderr
from prunebench.errors import BackendUnavailable, PrunebenchError, UsageError, unknown

# Option of `run` and `sweep` -> the grid's list; `run` takes one value of each.
_AXES = {
    "dataset": "datasets", "model": "models", "criterion": "criteria", "granularity": "granularities",
    "scope": "scopes", "schedule": "schedules", "sparsity": "sparsities", "backend": "backends",
    "batch-size": "batch_sizes", "seed": "seeds",
}  # fmt: skip
_RUN_DEFAULTS = {
    "datasets": ["digits"], "models": ["lenet300"], "criteria": ["l1"], "granularities": ["weight"],
    "scopes": ["global"], "schedules": ["agp"], "sparsities": ["0.9"], "backends": ["csr"], "batch_sizes": ["64"],
    "seeds": ["0"],
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except (UsageError, BackendUnavailable) as error:
        print(f"prunebench: {error}", file=sys.stderr)
        return 2
    except PrunebenchError as error:
        print(f"prunebench: {error}", file=sys.stderr)
        return 2 if isinstance(error, OSError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(
            "prunebench: interrupted; what was finished is stored, the same command goes on from there", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prunebench", description="Does pruning make it smaller and faster at the same accuracy, here?"
    )
    parser.add_argument("--version", action="version", version=f"prunebench {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    listing = commands.add_parser("list", help="names that can be used")
    listing.add_argument("group", nargs="?", help="criteria, models, …; all without it")
    listing.set_defaults(run=_list)

    one = commands.add_parser("run", help="one cell: train, prune, check, measure")
    for name, axis in _AXES.items():
        one.add_argument(f"--{name}", dest=axis, metavar="VALUE", help=f"default {_RUN_DEFAULTS[axis][0]}")
    add_lengths(one)
    add_places(one)
    one.add_argument("--threads", default="1", help="threads while measuring; default 1")
    one.add_argument("--timing-seconds", type=float, default=1.0, help="budget of the speed-up measurement")
    one.set_defaults(run=_run)

    sweep.add_to(commands)
    estimate.add_to(commands)

    tables = commands.add_parser(
        "tables", help="write tables, claims and plots from saved runs and print the main table"
    )
    tables.add_argument("runs", nargs="*", metavar="RUN", help="a saved run's name, number or path; none means all")
    tables.add_argument("--format", default="github", help="how to print: github, csv, html or latex")
    tables.add_argument(
        "--results", metavar="DIR", help="folder with runs/ and tables/; default results of the project"
    )
    tables.set_defaults(run=_tables)

    claims = commands.add_parser("claims", help="judge the registered claims by saved runs, write results/claims.md")
    claims.add_argument("runs", nargs="*", metavar="RUN", help="what to print verdicts from; none means all")
    claims.add_argument("--format", default="github", help="how to print: github, csv, html or latex")
    claims.add_argument("--results", metavar="DIR", help="folder with runs/; default results of the project")
    claims.set_defaults(run=_claims)

    plots.add_to(commands)
    compare.add_to(commands)
    report.add_to(commands)
    commands.add_parser("doctor", help="this machine: cores, threads, SIMD path, what is missing").set_defaults(
        run=_doctor
    )
    return parser


def _list(options: argparse.Namespace) -> int:
    from prunebench.models.names import known_models
    from prunebench.registry import GROUPS, names

    if options.group is not None and options.group not in (*GROUPS, "profiles", "recipes"):
        raise unknown("group", options.group, [*GROUPS, "profiles", "recipes"])
    for group in [options.group] if options.group else [*GROUPS, "profiles", "recipes"]:
        found = {"models": known_models, "profiles": profiles.names, "recipes": profiles.recipe_names}.get(
            group, lambda g=group: names(g)
        )()
        print("\n".join(found) if options.group else f"{group}: {', '.join(found)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from prunebench import backends, machine
    from prunebench.measuring.grid import Bench
    from prunebench.progress import Bar

    axes = {
        axis: [given] if (given := getattr(options, axis)) is not None else _RUN_DEFAULTS[axis]
        for axis in _AXES.values()
    }
    if axes["criteria"] == ["none"]:
        axes |= {"criteria": ["l1"], "sparsities": ["0"]}
    if not 0.0 <= options.timing_seconds < float("inf"):
        raise UsageError(f"--timing-seconds {options.timing_seconds} can't be used; give seconds of at least 0")
    threads = min(profiles.whole_number("--threads", options.threads, 1), machine.cores())
    plan = plan_of(options, axes, None)
    unpruned, *asked = plan.cases()
    asked = asked or [unpruned]
    reason = backends.unavailable(asked[0].backend)
    if reason is not None:
        raise BackendUnavailable(f"backend {asked[0].backend!r} is off: {reason}")
    progress = Bar(stderr, options.timing_seconds)
    lab = lab_of(options, progress)
    progress.announce(asked, lab)
    bench = Bench(lab, threads, options.timing_seconds)
    measured = []
    for case in asked:
        measured.append(bench.measure(case).facts)
        print(_summary(case.id, measured[-1]))
    return 0 if all(facts["status"] == "ok" for facts in measured) else 1


def _summary(name: str, f: dict[str, Any]) -> str:
    if f["status"] != "ok":
        return f"{name}\n  {f['status']}: {f['reason']}"
    return "\n".join([
        name,
        f"  accuracy     {100 * f['accuracy']:.2f} % (unpruned {100 * f['accuracy_dense']:.2f} %)",
        f"  nonzeros     {f['nonzeros']:,} of {f['prunable']:,}; multiply-adds {f['macs']:,} of {f['macs_dense']:,}",
        f"  on disk      {f['disk_bytes']:,} bytes, {f['dense_disk_bytes'] / f['disk_bytes']:.1f}× smaller than dense",
        f"  in memory    {f['resident_bytes']:,} bytes of weights",
        f"  latency      {1000 * f['latency_seconds']:.3g} ms per batch of {f['batch_size']}, {f['threads']} thread(s)",
        f"  speed-up     {f['speedup']:.2f}× [{f['speedup_low']:.2f}, {f['speedup_high']:.2f}] over {f['baseline']}: "
        f"{f['verdict']}",
        f"  checked      relative error {f['relative_error']:.1e} against float64",
    ])  # fmt: skip


def _tables(options: argparse.Namespace) -> int:
    from prunebench.claims.files import write_claims
    from prunebench.plots import write_plots
    from prunebench.runs import joined, load_runs
    from prunebench.tables import readme
    from prunebench.tables.files import write_tables
    from prunebench.tables.rendering import FORMATS, render

    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    results = settings.results(options.results)
    chosen = load_runs(results / "runs", options.runs)
    # The files tell of every run, so that looking at one doesn't unmake the tables of the others.
    everything = joined(load_runs(results / "runs"), chosen)
    files, main_table = write_tables(everything, results / "tables", show=chosen)
    files += write_claims(everything, results)
    files += write_plots(everything, results / "plots")
    print(render(main_table, options.format), end="")
    print(f"{len(files)} files in {results}", file=sys.stderr)
    try:
        readme.refresh(results.parent / "README.md", everything)
    except UsageError as error:
        stderr(f"prunebench: README.md is left as it was: {error}")
    return 0


def _claims(options: argparse.Namespace) -> int:
    from prunebench.claims import judge
    from prunebench.claims.files import printed, write_claims
    from prunebench.runs import joined, load_runs
    from prunebench.tables.rendering import FORMATS

    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    results = settings.results(options.results)
    chosen = load_runs(results / "runs", options.runs)
    everything = joined(load_runs(results / "runs"), chosen)
    print(printed(judge(chosen), options.format), end="")
    write_claims(everything, results)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from prunebench import backends, machine, registry
    from prunebench.engine.build_info import build_info

    facts = machine.describe(build_info())
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
    print(f"store      {settings.store_place(None, root)}")
    print(f"data       {settings.data(None, root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
