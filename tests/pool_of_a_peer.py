"""In a worker: a peer on a product large enough for all its threads, and how the work was shared among them."""

import os
import time
from contextlib import contextmanager

import torch
from torch import nn

import prunebench as pb


def _ticks():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        found[task] = int(fields[11]) + int(fields[12])
    return found


@contextmanager
def built(backend, threads):
    torch.set_num_threads(threads)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)).eval()
    x = torch.randn(512, 1024)
    engine = pb.compile(model, x, backend, threads=threads)
    engine(x)
    before, spent = _ticks(), time.process_time()
    while time.process_time() - spent < 1.0:
        engine(x)
    worked = sorted((ticks - before.get(task, 0) for task, ticks in _ticks().items()), reverse=True)
    yield lambda: engine(x), {"shares": [ticks / sum(worked) for ticks in worked]}
