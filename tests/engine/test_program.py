"""Native programs are checked when they are made: hostile numbers are refused, or do nothing outside their memory.

What is accepted runs on buffers of exactly the size that the program says; `make sanitize` watches the rest.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.engine import available, compile_engine, emit
from prunebench.engine.native_loader import native

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")

REFUSALS = (ValueError, OverflowError, MemoryError, TypeError)
BIG = (2**31 - 1, 2**31, 2**40 + 1, 2**62, 2**63 - 1)
SAMPLE = 20  # numbers of a long table that are tried
MOST = 1 << 22  # floats: larger arenas and buffers are not run
ROOM = 0 if "asan" in os.environ.get("LD_PRELOAD", "") else 64  # floats beside a buffer that must stay as they are
MARK = 12345.0


class Everything(nn.Module):
    """Every kind of native operation."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.b, self.c = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=2)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.d = nn.Conv2d(16, 8, 3, 1, 1, padding_mode="reflect")
        self.e, self.fc, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(32, 24), nn.Linear(24, 5)

    def forward(self, x):
        x = F.relu(self.a(x)).view(-1, 2, 4, 6, 6).transpose(1, 2).reshape(-1, 8, 6, 6)
        x = self.norm(x)
        x = F.relu(self.c(self.b(x)) + x)
        x = x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        x = torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 2, 2)], 1)
        x = F.silu(self.e(self.d(x)))
        x = F.hardswish(self.fc(x.flatten(1)))
        return self.head(x)


@pytest.fixture(scope="module")
def programs():
    """Arguments of native().program for one image, a few, and many at a time."""
    taken = []

    def take(*args):
        taken.append(args)
        return native().program(*args)

    names = {name: getattr(native(), name) for name in dir(native()) if not name.startswith("_")}
    spy = SimpleNamespace(**{**names, "program": take})
    torch.manual_seed(0)
    model = Everything().eval()
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data[torch.rand(m.weight.shape) < 0.7] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "native", lambda: spy)
        engine = compile_engine(model, torch.randn(1, 3, 12, 12), threads=1)
        for n in (1, 4, 16, 64):
            x = torch.randn(n, 3, 12, 12)
            torch.testing.assert_close(engine(x), model(x).detach(), rtol=1e-3, atol=1e-4)
    assert engine.form == "traced"
    return {args[0]: args for args in sorted(taken, key=lambda args: len(args[7]))}  # the longest for each number


def private(args):
    """The arguments with arrays of their own."""
    *sizes, values, phases, ops = args
    ops = [
        (kind, ints.copy(), p, tuple(None if a is None else a.copy() for a in arrays), offsets)
        for kind, ints, p, arrays, offsets in ops
    ]
    return [*sizes, values.copy(), phases.copy(), ops]


def run(program, args) -> None:
    """Runs one chunk in a thread of its own, whose arena is no larger than the program's."""
    chunk, shared, slot, inputs, outputs, values = args[:6]
    sizes = [1] * (inputs + outputs)
    for kind, _, port, *_, rows, _, _ in values.tolist():
        if kind in (2, 3):
            at = port if kind == 2 else inputs + port
            sizes[at] = max(sizes[at], int(rows) * chunk)
    if shared + slot > MOST or sum(sizes) > MOST:
        return
    buffers = [np.full(size + 2 * ROOM, MARK, np.float32) for size in sizes]
    for b in buffers:
        b[ROOM : len(b) - ROOM] = 0.5
    thread = threading.Thread(
        target=native().run, args=(program, 1, 1, None, *[b.ctypes.data + ROOM * 4 for b in buffers])
    )
    thread.start()
    thread.join()
    for i, b in enumerate(buffers):
        assert (b[:ROOM] == MARK).all()
        assert (b[len(b) - ROOM :] == MARK).all()
        assert i >= inputs or (b[ROOM : len(b) - ROOM] == 0.5).all()


def attempt(args) -> bool:
    """Whether the program is accepted; then it is run."""
    try:
        program = native().program(*args)
    except REFUSALS:
        return False
    run(program, args)
    return True


def others(value: int, r: np.random.Generator, wide: bool) -> list[int]:
    """Numbers to try in the place of `value`."""
    near = [value - 1, value + 1, -1, 0, value + 16, value * 2 + 1, int(r.integers(0, 1 << 16)), -(2**31)]
    far = [int(b) for b in r.choice(np.array(BIG[: None if wide else 1]), 2)] + ([-(2**63)] if wide else [])
    return [v for v in dict.fromkeys(near + far) if v != value]


def corrupt(array: np.ndarray, r: np.random.Generator, args, most: int = 10**9) -> tuple[int, int]:
    """Tries every number of an array in turn, or a sample of them; (accepted, refused)."""
    flat = array.reshape(-1)
    wide = array.itemsize == 8
    places = range(len(flat))
    if len(flat) > most:
        places = sorted({0, len(flat) - 1, *r.choice(len(flat), most, replace=False).tolist()})
    counts = [0, 0]
    for i in places:
        kept = int(flat[i])
        for value in others(kept, r, wide):
            if wide or -(2**31) <= value < 2**31:
                flat[i] = value
                counts[not attempt(args)] += 1
        flat[i] = kept
    return counts[0], counts[1]


def test_what_is_tried_has_every_operation(programs):
    kinds = {op[0] for args in programs.values() for op in args[7]}
    forms = {
        "pairs" if op[1][9] else "blocks" if op[1][8] else "table"
        for args in programs.values() for op in args[7] if op[0] == 3
    }  # fmt: skip
    assert kinds == set(range(7))
    assert any(op[3][3] is not None for args in programs.values() for op in args[7] if op[0] == 3)
    assert forms == {"table", "blocks", "pairs"}
    assert {v[0] for args in programs.values() for v in args[5].tolist()} == {0, 1, 2, 3}
    for args in programs.values():
        assert attempt(private(args))


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_hostile_values_phases_and_sizes(programs, chunk):
    r = np.random.default_rng(chunk)
    args = private(programs[chunk])
    for i in range(5):
        kept = args[i]
        for value in [*others(kept, r, True), 2**64]:
            args[i] = value
            attempt(args)
        args[i] = kept
    _, refused = corrupt(args[5], r, args)
    assert refused > args[5].size  # the check isn't a formality
    _, refused = corrupt(args[6], r, args)
    assert refused > args[6].size
    assert attempt(args)


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_hostile_operations(programs, chunk):
    r = np.random.default_rng(chunk)
    args = private(programs[chunk])
    refused: dict[int, int] = {}
    for i, (kind, ints, p, arrays, offsets) in enumerate(args[7]):
        refused[kind] = refused.get(kind, 0) + corrupt(ints, r, args)[1]
        for value in [*range(-1, 9), 2**40, 2**63 - 1]:
            if value != kind:
                args[7][i] = (value, ints, p, arrays, offsets)
                attempt(args)
        args[7][i] = (kind, ints, p, arrays, offsets)
    assert min(refused.values()) > 0
    assert attempt(args)


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_hostile_tables(programs, chunk):
    r = np.random.default_rng(chunk)
    args = private(programs[chunk])
    for i, (kind, ints, p, arrays, offsets) in enumerate(args[7]):
        for k, array in enumerate(arrays):
            if array is None:
                continue
            if array.dtype.kind == "i":
                corrupt(array, r, args, SAMPLE)
            for other in (None, array[:0], array[:-1], array[: len(array) // 2], np.append(array, array), array[None]):
                args[7][i] = (kind, ints, p, (*arrays[:k], other, *arrays[k + 1 :]), offsets)
                attempt(args)
            args[7][i] = (kind, ints, p, (*arrays[:k], array.astype(np.float64), *arrays[k + 1 :]), offsets)
            assert not attempt(args)
        for n in range(len(ints)):
            args[7][i] = (kind, ints[:n].copy(), p, arrays, offsets)
            attempt(args)
        args[7][i] = (kind, ints, p, arrays, offsets)
    assert attempt(args)


def test_offsets_of_another_layer(programs):
    for args in programs.values():
        args = private(args)
        found = [op[4] for op in args[7] if op[4] is not None]
        for i, (kind, ints, p, arrays, offsets) in enumerate(args[7]):
            for other in found:
                if offsets is not None:
                    args[7][i] = (kind, ints, p, arrays, other)
                    attempt(args)
            for other in (None, 3, object()):
                args[7][i] = (kind, ints, p, arrays, other)
                assert attempt(args) == (offsets is None)
            args[7][i] = (kind, ints, p, arrays, offsets)


def first_of(programs, kind, chunk=1, where=lambda op: True):
    """(arguments, the first operation of a kind in them)."""
    args = private(programs[chunk])
    return args, next(op for op in args[7] if op[0] == kind and where(op))


def test_a_tile_whose_end_overflows(programs):
    args, op = first_of(programs, 0)
    op[3][1][0] = 2**31 - 1
    with pytest.raises(ValueError, match="tile 0"):
        native().program(*args)
    op[3][1][0] = 0
    op[3][1][1] = 2**31 - 1
    with pytest.raises(ValueError, match="tile 0"):
        native().program(*args)


def test_a_value_whose_size_overflows(programs):
    args = private(programs[1])
    row = next(v for v in args[5] if v[0] == 0)
    row[6], row[8] = 2**30 + 1, 2**30  # 16 * 2^60 floats are 2^64
    with pytest.raises(ValueError, match="arena"):
        native().program(*args)


@pytest.mark.parametrize("place", [5, 6, 7])  # floats between rows, channels of the output, channels of the input
def test_a_move_whose_reach_overflows(programs, place):
    args, op = first_of(programs, 3, where=lambda op: op[1][3] > 2)
    op[1][2], op[1][4], op[1][8:10] = 3, 16, 0  # as a plain table of three rows that reads nothing
    args[7][args[7].index(op)] = (*op[:3], (np.full(48, -1, np.int32), *op[3][1:]), op[4])
    steps = int(op[1][2 if place == 5 else 3]) - 1
    op[1][place] = 2**63 // steps + 1  # times the steps: below zero when it wraps around
    with pytest.raises(ValueError, match="move"):
        native().program(*args)


@pytest.mark.parametrize("place", [12, 13])
def test_a_window_without_dilation(programs, place):
    """With taps without number it would run for ever."""
    args, op = first_of(programs, 4)
    op[1][place], op[1][place - 4] = 0, 2**31 - 2
    with pytest.raises(ValueError, match="window"):
        native().program(*args)


def test_a_dot_with_the_offsets_of_a_map(programs):
    args, op = first_of(programs, 1)
    g = np.random.default_rng(0)
    outputs, inputs = args[5][op[1][1]][5], args[5][op[1][0]][5]
    pack = native().pack(g.standard_normal((outputs, inputs)).astype(np.float32), 1, 1, 1, int(inputs))
    for plane in (1, 100):
        at = next(i for i, other in enumerate(args[7]) if other is op)
        args[7][at] = op = (*op[:4], native().offsets(pack, plane, 1, 1, 1))
        assert attempt(args) == (plane == 1)


def test_run_refuses_what_does_not_fit(programs):
    args = programs[1]
    program = native().program(*args)
    x, y = np.zeros(3 * 12 * 12, np.float32), np.zeros(5, np.float32)
    at = (x.ctypes.data, y.ctypes.data)
    for bad in [(program, 1, 1, None, at[0]), (program, 1, 1, None, *at, at[0]), (program, -1, 1, None, *at),
                (program, 1, 0, None, *at), (program, 1, 1, None, 0, at[1]), (program, 2**70, 1, None, *at),
                (program, 1, 1, np.zeros(1), *at), (program, 1, 1, np.zeros(len(args[7]), np.float32), *at),
                (program, 1, 1, None, "x", at[1]), (program,), (None, 1, 1, None, *at)]:  # fmt: skip
        with pytest.raises(REFUSALS):
            native().run(*bad)
    ns = np.zeros(len(args[7]))
    native().run(program, 1, 1, ns, *at)
    assert (ns > 0).all()
    assert y.any()
