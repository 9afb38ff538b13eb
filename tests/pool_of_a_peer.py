"""In a worker: a peer on a product large enough for all its threads: how these shared the work, and what it holds."""

import ctypes
import gc
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


def _resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as file:
        fields = file.read().split()
    return 1024 * int(fields[fields.index("VmRSS:") + 1])


def _held(backend, threads):
    """Bytes that stay resident for each byte of weights, beyond what a first model took."""
    x = torch.randn(4, 2000)
    pb.compile(nn.Linear(2000, 3).eval(), x, backend, threads=threads)(x)
    before = _resident()
    engine = pb.compile(nn.Sequential(nn.Linear(2000, 4000), nn.Linear(4000, 2000)).eval(), x, backend, threads=threads)
    engine(x)
    return (_resident() - before) / engine.nbytes


@contextmanager
def built(backend, threads):
    torch.set_num_threads(threads)
    held = _held(backend, threads)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)).eval()
    x = torch.randn(512, 1024)
    engine = pb.compile(model, x, backend, threads=threads)
    engine(x)
    before, spent = _ticks(), time.process_time()
    while time.process_time() - spent < 1.0:
        engine(x)
    worked = sorted((ticks - before.get(task, 0) for task, ticks in _ticks().items()), reverse=True)
    yield lambda: engine(x), {"shares": [ticks / sum(worked) for ticks in worked], "held": held}
