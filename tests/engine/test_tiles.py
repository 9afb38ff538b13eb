"""Register tiles: every region is covered once, by tiles the kernels have."""

from __future__ import annotations

import numpy as np
import pytest

from prunebench.engine.tiles import Tiling, choose, tiles

# widest tile for 0 to 4 rows: native/kernel_*.c
MAXQ = {"avx512": (0, 16, 10, 7, 6), "avx2": (0, 6, 3, 2, 1), "neon": (0, 6, 3, 2, 1), "scalar": (0, 2, 1, 0, 0)}


@pytest.mark.parametrize("isa", MAXQ)
def test_the_tiles_of_a_region(isa):
    maxq = MAXQ[isa]
    for rows in range(1, 5):
        for cols in {maxq[rows] // 2, maxq[rows]} - {0}:
            for rh in range(1, 41):
                for rw in range(1, 41):
                    found = tiles(rh, rw, Tiling(rows, cols, 1, 0.0)).reshape(-1, 4).tolist()
                    ys, xs = {(y, r) for y, _, r, _ in found}, {(x, q) for _, x, _, q in found}
                    assert max(r for _, r in ys) <= rows
                    assert max(q for _, q in xs) <= cols
                    # a grid: every band of rows with every band of columns, and the bands end to end
                    assert len(found) == len({tuple(t) for t in found}) == len(ys) * len(xs)
                    for bands, size in ((ys, rh), (xs, rw)):
                        assert [i for at, n in sorted(bands) for i in range(at, at + n)] == list(range(size))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (13, 9), (4, 40)])
def test_every_vector_once(size):
    for tiling in (Tiling(1, 16, 1, 0.0), Tiling(3, 4, 1, 0.0), Tiling(4, 6, 1, 0.0)):
        seen = np.zeros(size, int)
        for y, x, r, q in tiles(*size, tiling).reshape(-1, 4):
            seen[y : y + r, x : x + q] += 1
        assert (seen == 1).all()


def pick(rh, rw, isa="avx512", stride=(1, 1), chans=64, most=64, block=None, dense=0.9):
    return choose(rh, rw, (3, 3), stride, chans, dense, MAXQ[isa], most, block)


@pytest.mark.parametrize("isa", MAXQ)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2), (3, 3), (1, 4)])
def test_choose_stays_within_the_kernels(isa, stride):
    for rh in (1, 2, 3, 4, 7, 14, 40):
        for rw in (1, 2, 3, 5, 8, 14, 40):
            found = pick(rh, rw, isa, stride)
            assert found
            assert list(found) == sorted(found, key=lambda t: t.cycles)
            assert len({(t.rows, t.cols, t.block) for t in found}) == len(found)
            for t in found:
                assert t.rows <= rh
                assert t.cols <= min(rw, MAXQ[isa][t.rows])
                assert 1 <= t.block <= 64
                assert stride[1] <= 2 or t.cols == 1
                cover = tiles(rh, rw, t).reshape(-1, 4)
                assert cover[:, 2].max() == t.rows
                assert cover[:, 3].max() == t.cols


@pytest.mark.parametrize("most", [1, 2, 3, 17, 64])
def test_choose_respects_what_offsets_reach(most):
    assert max(t.block for t in pick(8, 8, most=most)) <= most
    assert max(t.block for t in pick(8, 8, chans=3, most=most)) <= min(3, most)


def test_choose_keeps_the_block_of_packed_weights():
    assert {t.block for t in pick(8, 8, block=13)} == {13}


def test_larger_tiles_take_fewer_cycles():
    best = pick(16, 16)[0]
    small = [t for t in pick(16, 16, "scalar") if t.rows * t.cols <= 2]
    assert best.rows * best.cols > 4
    assert best.cycles < min(t.cycles for t in small)


def test_a_layer_without_nonzeros_or_channels():
    assert pick(4, 4, dense=0.0)[0].cycles >= 0
    assert pick(4, 4, chans=0, most=0)
