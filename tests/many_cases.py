"""A saved run of as many cases as wanted, in pytest-benchmark's own form; its numbers are drawn, not measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

from prunebench import profiles
from prunebench.cell import Case, Cell
from prunebench.facts import facts_of

BACKENDS = ("dense", "masked", "scipy_csr", "csr")
CRITERIA = ("random", "l1", "l2", "snip", "grasp", "taylor", "obd", "wanda", "movement", "lp:p=3")
SCOPES = ("global", "layerwise", "erk", "lamp")
SCHEDULES = ("one_shot", "linear", "agp", "cosine", "geometric")
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
STATUSES = ("diverged", "oom", "timeout", "failed")
MACHINE = {"id": "synthetic0", "cpu": "drawn", "cores": 2, "engine": {"isa": "avx512"}, "versions": {"torch": "2.0"}}


def cases(count: int) -> Iterator[Case]:
    """So many cases of a grid on MNIST, seeds innermost, the unpruned controls first."""
    models, seeds = ("lenet300", "lenet5"), range(5)
    recipes = {model: profiles.recipe(model, "mnist") for model in models}
    controls = (Cell("mnist", m, seed=seed, recipe=recipes[m]) for m in models for seed in seeds)
    axes = product(CRITERIA, SCOPES, SCHEDULES, SPARSITIES, models, seeds)
    pruned = (Cell("mnist", m, c, "weight", scope, schedule, s, seed, recipes[m])
              for c, scope, schedule, s, m, seed in axes)  # fmt: skip
    cells = (cell for group in (controls, pruned) for cell in group)
    return islice((Case(cell, b, n) for cell in cells for b in BACKENDS for n in (1, 64)), count)


def facts(case: Case, draw: random.Random) -> dict[str, Any]:
    """Complete facts of a case, one in fifty of them a loss."""
    if draw.random() < 0.02:
        return facts_of(case, 1, draw.choice(STATUSES), reason="drawn")
    prunable, sparsity = (266_200, 430_500)[case.cell.model == "lenet5"], case.cell.sparsity
    nonzeros, speedup = round(prunable * (1 - sparsity)), draw.uniform(0.2, 8.0)
    return facts_of(
        case, 1, accuracy=round(draw.uniform(0.8, 0.99), 4), accuracy_dense=0.98, relative_error=1e-7,
        nonzeros=nonzeros, prunable=prunable, parameters=prunable + 580, macs=nonzeros, macs_dense=prunable,
        disk_bytes=prunable // 8 + 4 * nonzeros, dense_disk_bytes=4 * prunable + 4000,
        resident_bytes=draw.choice((4, 8)) * nonzeros + 4000, latency_seconds=1e-3 / speedup, baseline_seconds=1e-3,
        speedup=speedup, speedup_low=speedup * 0.98, speedup_high=speedup * 1.02,
        baseline=draw.choice(("dense", "dense_channels_last")), blocks=20, training_seconds=5.0,
        verdict=draw.choice(("faster", "slower", "inconclusive", "unstable")),
        collapse=draw.choice((None, None, None, "layer collapse")),
    )  # fmt: skip


def save(folder: Path, count: int, name: str = "many") -> Path:
    """Write the run under folder/runs; returns the file."""
    draw = random.Random(0)
    found = [(case, facts(case, draw)) for case in cases(count)]
    benchmarks = [
        {"group": case.group, "name": f"test_cell[{case.id}]", "fullname": f"benchmarks/test_grid.py::{case.id}",
         "params": {"case": case.id}, "param": case.id, "extra_info": own, "options": {"timer": "perf_counter"},
         "stats": {"median": own["latency_seconds"], "rounds": 50, "iterations": 10}}
        for case, own in found if own["status"] == "ok"
    ]  # fmt: skip
    whole = {
        "machine_info": {"node": "", "prunebench": MACHINE}, "commit_info": {}, "benchmarks": benchmarks,
        "datetime": "2026-01-01T00:00:00+00:00", "version": "5.0.0",
        "prunebench": {"schema": 1, "profile": "paper", "untimed": [own for _, own in found if own["status"] != "ok"]},
    }  # fmt: skip
    path = folder / "runs" / f"0001_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, allow_nan=False))
    return path
