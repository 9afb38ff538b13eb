"""Facts of the grid as a saved run holds them, made up: what tables, plots, claims and reports are tried on."""

from dataclasses import replace
from pathlib import Path

from prunebench.cell import Case, Cell, Recipe
from prunebench.facts import facts_of
from prunebench.runs import Run

CONTROL = Cell("digits", "lenet5", recipe=Recipe(name="brief"))
PRUNED = replace(CONTROL, criterion="l1", granularity="weight", scope="global", schedule="agp", sparsity=0.9)
NUMBERS = {
    "accuracy": 0.9,
    "nonzeros": 43050,
    "prunable": 430500,
    "parameters": 431080,
    "macs": 1000,
    "macs_dense": 9000,
    "disk_bytes": 250000,
    "dense_disk_bytes": 1750000,
    "resident_bytes": 300000,
    "latency_seconds": 0.0015,
    "baseline_seconds": 0.003,
    "speedup": 2.0,
    "speedup_low": 1.9,
    "speedup_high": 2.1,
    "baseline": "dense",
    "verdict": "faster",
    "blocks": 20,
    "relative_error": 1e-7,
}


def facts(cell=PRUNED, backend="csr", batch=64, threads=1, status="ok", **values):
    numbers = {**NUMBERS, **values} if status == "ok" else values
    return facts_of(Case(cell, backend, batch), threads, status, **numbers)


def run(*rows, name="quick", time="2024-01-01T00:00:00", machine="aaaaaaaaaa", complete=True):
    about = {
        "id": machine,
        "cpu": "some <CPU> & more",
        "cores": 2,
        "engine": {"isa": "avx2"},
        "versions": {"torch": "2"},
    }
    return Run(Path(f"0001_{name}.json"), name, time, about, tuple(rows), complete)


def grid():
    return [facts(cell, backend) for cell in (PRUNED, CONTROL) for backend in ("csr", "dense", "masked")]
