"""In a worker: a peer on a product large enough for all its threads, and how many of them worked at once."""

import os
import time
from contextlib import contextmanager

import torch
from torch import nn

import prunebench as pb

POOLS = {"jax": "tf_XLAEigen", "jax_bcsr": "tf_XLAEigen"}  # what XLA calls its threads; None elsewhere


def _ticks():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        fields = rest.split()
        found[task] = (name, int(fields[11]) + int(fields[12]))
    return found


@contextmanager
def built(backend, threads):
    torch.set_num_threads(threads)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)).eval()
    x = torch.randn(512, 1024)
    engine = pb.compile(model, x, backend, threads=threads)
    before, start, spent = _ticks(), time.perf_counter(), time.process_time()
    while time.process_time() - spent < 1.0 and time.perf_counter() - start < 20:
        engine(x)
    spent, wall = time.process_time() - spent, time.perf_counter() - start
    after = _ticks()
    pool = sum(name == POOLS.get(backend) for name, _ in after.values()) or None
    working = [t for t, (_, ticks) in after.items() if ticks - before.get(t, ("", 0))[1] >= 5]
    facts = {"busy": -(-spent // wall) if wall < 1.2 * spent else 1, "pool": pool, "working": len(working)}
    yield lambda: engine(x), facts
