"""Every table written into a folder, with an index; tables of runs that are no longer there are removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prunebench.atomic import make_folder, write_text
from prunebench.claims import claims_table, judge
from prunebench.errors import UsageError
from prunebench.runs import Run
from prunebench.tables.answers import Key
from prunebench.tables.breakeven import network_breakeven_tables
from prunebench.tables.grid import bytes_table, details_of, frame, main_table
from prunebench.tables.layers import breakeven_tables, layer_details, layer_tables
from prunebench.tables.networks import network_details, network_tables
from prunebench.tables.rendering import in_every_format, render

Tables = dict[Key, pd.DataFrame]
_OURS = ("main-*", "bytes-*", "layers-*", "breakeven-*", "networks-*", "detail.csv", "index.md")


def write_tables(
    runs: Sequence[Run], folder: Path, show: Sequence[Run] | None = None
) -> tuple[list[Path], pd.DataFrame]:
    """Write every table of the runs into a folder, remove tables of runs no longer there; returns (files, one table).

    That one is of the machine and thread count measured last, of the runs to show (None: of all): the grid's, else
    the networks', else the layers', else the claims they are about.
    """
    if not any(run.cases for run in runs):
        raise UsageError("no saved run holds a result yet; run: pytest benchmarks --benchmark-save=NAME")
    kinds = kinds_of(runs)
    texts: dict[str, str] = {}
    if any(run.facts for run in runs):
        texts["detail.csv"] = render(details_of(runs), "csv")
    for name, details in (("layers", layer_details(runs)), ("networks", network_details(runs))):
        if len(details):
            texts[f"{name}-detail.csv"] = render(details, "csv")
    for kind, tables in kinds.items():
        for (machine, threads), table in tables.items():
            texts.update(in_every_format(f"{kind}-{machine}-t{threads}", table))
    texts["index.md"] = _index(runs, kinds)
    make_folder(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    for old in [path for pattern in _OURS for path in folder.glob(pattern)]:
        if old.name not in texts:
            old.unlink(missing_ok=True)
    return [folder / name for name in texts], _shown(runs if show is None else show)


def kinds_of(runs: Sequence[Run]) -> dict[str, Tables]:
    """{kind: {(machine, threads): table}}; a timing table never mixes two of them."""
    found: dict[str, Tables] = {"main": {}, "bytes": {}}
    if any(run.facts for run in runs):
        details = details_of(runs)
        for g in details[["machine", "threads"]].drop_duplicates().itertuples(index=False):
            key = (str(g.machine), int(g.threads))
            found["main"][key], found["bytes"][key] = main_table(details, *key), bytes_table(details, *key)
    found["networks"] = network_tables(runs)
    found["layers"], found["breakeven"] = layer_tables(runs), breakeven_tables(runs)
    found["breakeven-networks"] = network_breakeven_tables(runs)
    return found


def _shown(runs: Sequence[Run]) -> pd.DataFrame:
    if not any(run.cases for run in runs):
        raise UsageError("the runs named hold no result; name others, or none for all")
    if any(run.facts for run in runs):
        table = frame(runs)
        last = table.iloc[-1]
        return main_table(details_of(runs), str(last["machine"]), int(last["threads"]))
    tables = network_tables(runs) or layer_tables(runs)
    return list(tables.values())[-1] if tables else claims_table(judge(runs))


TITLES = {
    "main": "speed and accuracy",
    "bytes": "bytes",
    "networks": "networks",
    "layers": "layers",
    "breakeven": "break-even",
    "breakeven-networks": "break-even of networks",
}


def _index(runs: Sequence[Run], kinds: dict[str, Tables]) -> str:
    machines = {run.machine.get("id", "unknown"): run.machine for run in runs}
    keys = dict.fromkeys(key for tables in kinds.values() for key in tables)
    present = [kind for kind, tables in kinds.items() if tables]
    tables = pd.DataFrame([
        {**{TITLES[kind]: _link(kind, key) if key in kinds[kind] else "–" for kind in present},
         "machine": key[0], "threads": key[1], "what it is": _machine(machines[key[0]])}
        for key in keys
    ])  # fmt: skip
    sources = pd.DataFrame([
        {"run": run.name, "machine": run.machine.get("id", "unknown"), "cases": run.cases, "when": run.datetime,
         "complete": "yes" if run.complete else "cut off"}
        for run in runs
    ])  # fmt: skip
    notes = _NOTES + (_QUESTIONS if {"networks", "layers"} & set(present) else "")
    notes += _BREAKEVEN if "breakeven-networks" in present else ""
    titles = [TITLES[kind] for kind in present]
    return f"{notes}\n{render(tables, 'github', links=titles)}\nMade from these runs:\n\n{render(sources, 'github')}"


def _link(kind: str, key: Key) -> str:
    name = f"{kind}-{key[0]}-t{key[1]}"
    return f"[{name}]({name}.md)"


def _machine(machine: dict[str, Any]) -> str:
    engine, versions = machine.get("engine", {}), machine.get("versions", {})
    parts = [
        machine.get("cpu", "unknown CPU"),
        f"{machine.get('cores', '?')} cores",
        f"engine {engine.get('isa', 'off')}",
    ]
    return ", ".join(parts + [f"{k} {v}" for k, v in sorted(versions.items())])


_NOTES = """# Tables

Generated by `prunebench tables` from the runs under `results/runs/`; edits here are lost. Accuracy: mean ± sample
standard deviation over n seeds, on the test split, through the backend that ran most seeds (of several the first);
a backend whose accuracy differs from it on the same seeds is named. Each backend's column: median milliseconds per
batch, then the speed-up over the faster of torch's dense ways (eager, channels_last; `over` says which it was) with
its 95 % bootstrap interval over interleaved blocks; over several seeds the geometric mean, of as many seeds as the
accuracy's where no other n stands behind it. A speed-up with a word behind it is not one to rely
on: `inconclusive` (the interval doesn't clear 1 by more than the A/A control and 1 %) or `unstable` (the A/A control
or the samples drifted). Bytes on disk: bitmask encoding against the dense checkpoint. The bytes tables count
parameters, files, and the weights that each backend keeps in memory. `detail.csv` holds all numbers.
"""

_QUESTIONS = """
Layers and networks have random weights, one set each (n = 1: an interval is of the timing alone), pruned layer by
layer by magnitude. The networks tables hold milliseconds per batch of every way to run the unpruned network and of the
engine (`csr_unpruned`: with all weights, `csr`: pruned; the network's RGB stem stays dense), all timed in the same
interleaved blocks; the speed-up is over the fastest dense way of that row, which is named. `~`: timed in the first
blocks only, because it was clearly slower. With several threads every way has a process of its own that sleeps while
another is timed, because idle threads that share a process spin and hold the core that others need; rows of older
runs, whose `process` is empty in the detail file, shared one and are less steady. On one thread all ways share a
process. The layers tables hold single layers against the faster of torch's two layouts; useful GFLOP/s count the
operations with a nonzero weight, dense-equivalent ones all of them, and the roof was measured in the same run: `l1`,
multiply-adds with one operand each from the L1 cache, or `dense`, torch's matrix product; beyond 100 % the roof was
measured in a slower moment. Break-even: the sparsity from which the engine is faster than torch, between measured
sparsities by interpolation, unstable and inconclusive timings left out. The `-detail.csv` files hold all numbers.
"""

_BREAKEVEN = """
The break-even tables of networks say from which sparsity on a backend is faster than the faster of torch's dense ways:
interpolated in time per batch between measured sparsities, unstable and inconclusive timings left out. `below 50 %`: at
the lowest sparsity measured it is faster already; `0 %`: it runs even the unpruned network faster.
"""
