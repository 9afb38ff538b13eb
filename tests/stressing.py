"""Shared by the tests of the engine under load: a network with each kind of layer, threads that start at once."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunebench as pb


class Net(nn.Module):
    """A stem, a block with a stride and a sum, a pool, a head: each kind of kernel and buffer once."""

    def __init__(self, seed: int, width: int = 16, outputs: int = 5):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.b, self.c = nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, width, 3, padding=1)
        self.short, self.head = nn.Conv2d(width, width, 1, 2), nn.Linear(width, outputs)
        g = torch.Generator().manual_seed(seed)
        for p in self.parameters():
            p.requires_grad_(False).uniform_(-0.4, 0.4, generator=g)
            if p.dim() > 1:
                p[torch.rand(p.shape, generator=g) < 0.85] = 0
        self.eval()

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.a(x))), 2)
        x = F.relu(self.c(F.relu(self.b(x))) + self.short(x))
        return self.head(x.mean((2, 3)))


def images(n: int, seed: int = 0, size: int = 16) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(100 * seed + n))


def reference(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).double()(x.double())


def right(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


def build(model: nn.Module, n: int = 2, threads: int = 1):
    return pb.compile(model, images(n), backend="csr", threads=threads)


def at_once(*works: Callable[[], None]) -> None:
    """Runs them in one thread each, started together; raises the first exception of any."""
    start = threading.Barrier(len(works))
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            start.wait(60)
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        assert not any(t.is_alive() for t in threads), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    if failures:
        raise failures[0]
