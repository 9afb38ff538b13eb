"""Tables of the moves between layouts: the fast forms do what the plain table does, in numpy and natively."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prunebench.engine import available, moves
from prunebench.engine.layout import LANES, Layout, best_layout, flat_layout
from prunebench.engine.moves import fast_table, flat_table, map_table, source
from prunebench.engine.native_loader import native
from prunebench.engine.planner import Step, Value
from prunebench.engine.schedule import Memory

needs_native = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")
FILL = -3.0
MODES = ("zeros", "reflect", "replicate", "circular")


def layout_of(r, chunk, h, w) -> Layout:
    """A random layout for a chunk of images of h x w."""
    if (h, w) == (1, 1) and r.random() < 0.7:
        return flat_layout(chunk)
    images = int(r.choice([n for n in (1, 2, 4, 8, 16) if n <= chunk]))
    room = LANES // images
    gy = int(r.integers(1, room + 1))
    gx = int(r.integers(1, room // gy + 1))
    return Layout(images, gy, gx, -(-h // gy), -(-w // gx))


class Case:
    """A random move: a value of the network's input or of the arena, to another layout, with or without its halo."""

    def __init__(self, seed: int):
        r = np.random.default_rng(seed)
        self.chunk = int(r.choice([1, 4, 16, 64]))
        one = r.random() < 0.2
        h, w = (1, 1) if one else (int(r.integers(2, 12)), int(r.integers(2, 12)))
        self.c, self.h, self.w = int(r.integers(1, 6)), h, w
        given = r.random() < 0.3
        self.source = Value((self.c, h, w), None if given else layout_of(r, self.chunk, h, w), 0)
        if not given and not self.source.layout.vector:
            self.source.pads = r.integers(0, 3, 4).tolist()
        self.memory = None if given else Memory(self.source, [self.source])
        out = layout_of(r, self.chunk, h, w)
        while out.vector:
            out = layout_of(r, self.chunk, h, w)
        self.out = Value((self.c, h, w), out, fill=FILL)
        self.modes = (str(r.choice(MODES)), str(r.choice(MODES)))
        self.whole = bool(r.random() < 0.6 and out.stack == 1)
        if self.whole:
            most = [h - 1, h - 1, w - 1, w - 1]  # what every mode can take
            self.out.pads = [int(r.integers(0, min(3, m) + 1)) for m in most]
        self.target = Memory(self.out, [self.out])
        self.images = r.standard_normal((self.chunk, self.c, h, w)).astype(np.float32)
        self.step = Step(
            "move", None, [self.source], self.out, {"modes": self.modes, "whole": True} if self.whole else {}
        )
        at, self.sc = source(self.source, self.memory)
        self.table, self.first = map_table(at, self.step, out, self.target)
        self.groups = self.chunk // (out.images * out.stack)
        self.src = [int(at(g * out.images * out.stack, 0, 0) - at(0, 0, 0)) for g in range(self.groups)]

    def memory_of(self, value: Value, m: Memory, blank: float) -> np.ndarray:
        """All groups of a value in the arena with the images in it, by the definition in native/program.h."""
        lay = value.layout
        many = lay.images * lay.stack
        m.groups, m.group = self.chunk // many, m.size
        data = np.full(m.size * m.groups, blank, np.float32)
        for n in range(self.chunk):
            for c in range(self.c):
                if lay.vector:
                    data[c] = self.images[n, c, 0, 0]
                    continue
                for y in range(self.h):
                    for x in range(self.w):
                        inside = n % many
                        lane = inside % lay.images * lay.per + y // lay.rh * lay.gx + x // lay.rw
                        col = x % lay.rw + inside // lay.images + m.pads[2]
                        at = (y % lay.rh + m.pads[0]) * m.row + c * m.cols + col
                        data[n // many * m.group + at * LANES + lane] = self.images[n, c, y, x]
        return data

    def given(self) -> np.ndarray:
        """The source as floats, group after group."""
        if self.memory is None:
            return self.images.reshape(-1)
        return self.memory_of(self.source, self.memory, np.nan)  # what isn't an image must never be read

    def expected(self) -> np.ndarray:
        """The new layout, with nan where the move doesn't write; lanes in use only."""
        m, lay = self.target, self.out.layout
        if not self.whole:
            return self.memory_of(self.out, m, np.nan)
        m.groups, m.group = self.chunk // lay.images, m.size
        data = np.full(m.size * m.groups, np.nan, np.float32)
        names = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        top, bottom, left, right = m.pads
        big = self.images
        for axis, mode, pad in ((2, self.modes[0], (top, bottom)), (3, self.modes[1], (left, right))):
            pads = [(0, 0)] * 4
            pads[axis] = pad
            more = {"constant_values": FILL} if mode == "zeros" else {}
            big = np.pad(big, pads, names[mode], **more)
        for n in range(self.chunk):
            for lane in range(lay.per):
                gy, gx = divmod(lane, lay.gx)
                for y in range(lay.rh + top + bottom):
                    for x in range(lay.rw + left + right):
                        iy, ix = gy * lay.rh + y, gx * lay.rw + x
                        at = n // lay.images * m.group + (y * m.row + x) * LANES + n % lay.images * lay.per + lane
                        if iy < big.shape[2] and ix < big.shape[3]:
                            data[at + np.arange(self.c) * m.cols * LANES] = big[n, :, iy, ix]
        return data


def moved(case: Case, numbers, blocks, pairs, data) -> np.ndarray:
    """The move as native/program.h describes it."""
    m = case.target
    out = np.full(m.size * case.groups, np.nan, np.float32)
    rows = case.table.shape[0]
    for g in range(case.groups):
        for c in range(case.c):
            s0, d0 = case.src[g] + c * case.sc, g * m.size + case.first + c * m.cols * LANES
            if blocks:
                for count, *rest in np.reshape(numbers, (blocks, 33)):
                    src, dst = np.array(rest[:16]), rest[16:]
                    for i in range(count):
                        out[d0 + dst[i] : d0 + dst[i] + LANES] = np.where(
                            src < 0, FILL, data[s0 + np.maximum(src, 0) + i]
                        )
            elif pairs:
                for dst, src, mask, first, *lane in np.reshape(numbers, (pairs, 20)):
                    if first:
                        out[d0 + dst : d0 + dst + LANES] = FILL
                    for n in range(LANES):
                        if mask >> n & 1:
                            out[d0 + dst + n] = data[s0 + src + lane[n]]
            else:
                table = np.reshape(numbers, (rows, -1))
                for y in range(rows):
                    at = d0 + y * m.row * LANES
                    out[at : at + table.shape[1]] = np.where(table[y] < 0, FILL, data[s0 + np.maximum(table[y], 0)])
    return out


def run(case: Case, numbers, blocks, pairs, data) -> np.ndarray:
    """The same natively: into the arena where the source lies there, through the move, and out again."""
    m, s = case.target, case.memory
    inside = s is not None
    vector = inside and case.source.layout.vector
    out_size, in_size = m.size * case.groups, len(data)
    kind = 1 if vector else 0
    values = [[2, 0, 0, 0, 1, case.c, in_size, 1, 0],
              [0, 0, 0, m.size, case.groups, case.c, m.rows, m.cols, m.row],
              [3, 0, 0, 0, 1, case.c, out_size, 1, 0]]  # fmt: skip
    if inside:
        row = [1, in_size, 1, 0] if vector else [case.c, s.rows, s.cols, s.row]
        # the memory as a single channel of floats for the copy in, and as the value for the move
        whole = [1, 0, out_size, 0, 1, in_size, 1, 1, 0]
        values += [whole, [kind, 0, out_size, s.size, s.groups, case.c, *(row[1:] if not vector else [1, 1, 0])]]
    values += [[1, 0, 0, 0, 1, out_size, 1, 1, 0]]
    last = len(values) - 1

    def copy(a, b, n):
        arrays = (np.arange(n, dtype=np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), None)
        return (3, np.array([a, b, 1, 1, n, 0, 0, 0, 0, 0], np.int64), 0.0, arrays, None)

    rows, n = case.table.shape
    dst = np.arange(case.groups, dtype=np.int64) * m.size + case.first
    arrays = (np.ascontiguousarray(numbers, np.int32), np.array(case.src, np.int64), dst, None)
    ints = [4 if inside else 0, 1, rows, case.c, n, m.row * LANES, m.cols * LANES, case.sc, blocks, pairs]
    blank = (3, np.array([0, last, 1, 1, out_size, 0, 0, 0, 0, 0], np.int64), np.nan,
             (np.full(out_size, -1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), None), None)  # fmt: skip
    ops = [blank, *([copy(0, 3, in_size)] if inside else []), (3, np.array(ints, np.int64), FILL, arrays, None)]
    phases = [[0, len(ops) - 1, 1], [len(ops) - 1, len(ops), case.groups], [len(ops), len(ops) + 1, 1]]
    ops.append(copy(last, 2, out_size))
    program = native().program(
        1, out_size + in_size, 0, 1, 1, np.array(values, np.int64), np.array(phases, np.int64), ops
    )
    out = np.zeros(out_size, np.float32)
    x = np.ascontiguousarray(data)
    native().run(program, 1, 1, None, x.ctypes.data, out.ctypes.data)
    return out


def forms(case: Case):
    """Every form of the case's table: (name, numbers, blocks, pairs)."""
    dy = case.target.row * LANES
    places = (
        np.arange(case.table.shape[0])[:, None] * dy + np.arange(case.table.shape[1] // LANES)[None, :] * LANES
    ).reshape(-1)
    vectors = case.table.reshape(-1, LANES)
    yield "table", case.table.reshape(-1), 0, 0
    blocks = moves._blocks(vectors, places)
    yield "blocks", blocks.reshape(-1), len(blocks), 0
    if case.memory is not None and not case.source.layout.vector:
        pairs = moves._pairs(vectors, places)
        yield "pairs", pairs.reshape(-1), 0, len(pairs)
    inside = case.memory is not None and not case.source.layout.vector
    yield "fast", *fast_table(case.table, dy, inside)


def agree(got: np.ndarray, want: np.ndarray, case: Case) -> None:
    """Where the definition says something the move says the same; the rest of what it wrote is the fill."""
    told = ~np.isnan(want)
    np.testing.assert_array_equal(got[told], want[told])
    rest = got[~told]
    if case.out.layout.per * case.out.layout.images == LANES:
        assert (np.isnan(rest) | (rest == FILL)).all() or case.whole
    assert told.any()


@pytest.mark.parametrize("seed", range(50))
def test_every_form_does_what_the_layouts_say(seed):
    case = Case(seed)
    data, want = case.given(), case.expected()
    case = Case(seed) if case.memory is None else rebuilt(case)
    plain = None
    for name, *form in forms(case):
        got = moved(case, *form, data)
        agree(got, want, case)
        plain = got if plain is None else plain
        np.testing.assert_array_equal(got, plain, err_msg=name)


def rebuilt(case: Case) -> Case:
    """Once the source's groups are known, the first place of each."""
    at, case.sc = source(case.source, case.memory)
    many = case.out.layout.images * case.out.layout.stack
    case.table, case.first = map_table(at, case.step, case.out.layout, case.target)
    case.src = [int(at(g * many, 0, 0) - at(0, 0, 0)) for g in range(case.groups)]
    return case


@needs_native
@pytest.mark.parametrize("seed", range(50))
def test_every_form_runs_natively(seed):
    case = Case(seed)
    data = case.given()
    case = rebuilt(case)
    for name, *form in forms(case):
        np.testing.assert_array_equal(run(case, *form, data), moved(case, *form, data), err_msg=name)


def test_all_forms_are_chosen_somewhere():
    chosen = set()
    for seed in range(50):
        case = Case(seed)
        case.given()
        *_, (_, _, blocks, pairs) = forms(rebuilt(case))
        chosen.add("blocks" if blocks else "pairs" if pairs else "table")
    assert chosen == {"table", "blocks", "pairs"}


@pytest.mark.parametrize("images", [1, 4, 16, 64])
def test_flattening(images):
    r = np.random.default_rng(images)
    c, h, w = 3, 4, 5
    lay = best_layout(min(images, LANES), h, w)
    value = Value((c, h, w), lay)
    m = Memory(value, [value])
    case = SimpleNamespace(chunk=images, c=c, h=h, w=w, images=r.standard_normal((images, c, h, w)).astype(np.float32))
    data = Case.memory_of(case, value, m, np.nan)
    at, sc = source(value, m)
    flat = flat_layout(images)
    if flat.vector:
        flat = Layout(1, 1, 1, 1, 1)
    table = flat_table(at, flat, h, w)
    for channel in range(c):
        for y in range(h):
            for x in range(w):
                for s in range(flat.stack):
                    for n in range(flat.images):
                        number = table[y, x, s, n]
                        assert data[number + channel * sc] == case.images[s * flat.images + n, channel, y, x]
    assert (table[..., flat.images :] == -1).all()
