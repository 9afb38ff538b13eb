"""The arithmetic of sharing out: largest remainders, levels with bounds, and masks that never grow."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.masks import LayerCollapseWarning
from prunebench.sharing import alone, apportion, together, water_fill
from prunebench.units import UnitSet, forced

GONE = -math.inf


def sets(*scores, costs=None, staying=None):
    costs = costs or [1] * len(scores)
    return [
        UnitSet((f"l{i}",), torch.tensor(s, dtype=torch.float32), c, lambda keep: {}, t)
        for i, (s, c, t) in enumerate(zip(scores, costs, staying or [0] * len(scores), strict=True))
    ]


def ramp(n):
    return [float(i) for i in range(n)]


@pytest.mark.parametrize(
    ("targets", "counts"),
    [
        ([2.5, 2.3, 1.2], [3, 2, 1]),  # down to 2 + 2 + 1, the missing one to the largest remainder
        ([1.9, 1.9, 2.2], [2, 2, 2]),
        ([2.0, 2.0, 2.0], [2, 2, 2]),
        ([0.5, 0.5, 5.0], [1, 0, 5]),  # the earlier of equals
        ([1.9999999999, 2.0000000001, 2], [2, 2, 2]),
    ],
)
def test_the_largest_remainder_gets_the_unit(targets, counts):
    assert apportion(sets(ramp(9), ramp(9), ramp(9)), targets, 6) == counts


def test_what_a_full_set_can_not_give_the_others_do():
    assert apportion(sets(ramp(3), ramp(9), ramp(9)), [5.0, 2.0, 2.0], 9) == [2, 4, 3]


def test_nobody_gets_back_what_is_gone():
    assert apportion(sets([GONE] * 4 + ramp(5), ramp(9)), [1.0, 4.0], 5) == [4, 1]
    assert apportion(sets([GONE] * 6 + ramp(3), ramp(9)), [1.0, 4.0], 5) == [6, 0]


def test_out_of_reach_is_all_but_the_best():
    assert apportion(sets(ramp(3), ramp(4)), [3.0, 4.0], 7) == [2, 3]


@pytest.mark.parametrize(("total", "counts"), [(0, [0, 0]), (9, [0, 1]), (20, [1, 1]), (34, [2, 2])])
def test_units_of_ten_and_seven_come_near_the_total(total, counts):
    found = apportion(sets(ramp(4), ramp(4), costs=[10, 7]), [total / 2] * 2, total)
    assert found == counts
    assert abs(found[0] * 10 + found[1] * 7 - total) <= 3.5


def test_units_of_different_weights_in_one_set():
    costs = torch.tensor([4, 1, 4, 2])
    one = UnitSet(("l",), torch.tensor([3.0, 1.0, 2.0, 9.0]), costs, lambda keep: {})
    assert (one.weights, one.units, one.most, one.gone, one.least) == (11, 4, 3, 0, 2)
    assert one.ladder.tolist() == [0, 1, 5, 9, 11]
    # 0, 1, 5 or 9 of 11 weights can go.
    for sparsity, count in [(0.0, 0), (0.2, 1), (0.35, 2), (0.5, 2), (0.7, 3), (0.85, 3)]:
        assert alone([one], [sparsity]) == [count]
        assert together([one], sparsity) == [count]
        assert apportion([one], [11 * sparsity], round(11 * sparsity)) == [count]


def test_weights_in_no_unit_count_and_stay():
    one = sets(ramp(6), staying=[6])[0]
    assert (one.weights, one.most, one.least) == (12, 6, 6)
    assert alone([one], [0.25]) == [3]
    assert alone([one], [0.5]) == [6]
    assert together([one], 0.5) == [6]


def test_no_collapse_is_reported_where_something_stays(recwarn):
    together(sets(ramp(6), [100.0] * 6, staying=[6, 6]), 0.25)
    alone(sets(ramp(6), staying=[6]), [0.5])
    assert not [w for w in recwarn if issubclass(w.category, LayerCollapseWarning)]


@pytest.mark.parametrize("share", [together, lambda s, x: alone(s, [x] * len(s))])
def test_a_later_pruning_never_revives_a_unit_of_another_weight(share):
    # Units 0 and 1 are gone, 5 weights. In order of position the totals are 0, 4, 5: 4 is nearest to a wanted 4.
    one = UnitSet(
        ("l",), forced(torch.ones(6), torch.tensor([0, 0, 1, 1, 1, 1]).bool()), torch.tensor([4, 1] * 3), dict
    )
    assert share([one], 4 / 15) == [2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 500)), min_size=1, max_size=8),
    st.floats(0.0, 1.0),
)
def test_a_level_is_the_one_that_bisection_finds(layers, share):
    rates, high = [float(a) for a, _ in layers], [float(b) for _, b in layers]
    total = share * sum(high)
    found = water_fill(rates, [0.0] * len(high), high, total)
    low_level, high_level = 0.0, max(high)
    for _ in range(200):
        level = (low_level + high_level) / 2
        filled = [min(level * r, h) for r, h in zip(rates, high, strict=True)]
        low_level, high_level = (level, high_level) if sum(filled) < total else (low_level, level)
    assert found == pytest.approx(filled, rel=1e-9, abs=1e-9)
    assert sum(found) == pytest.approx(total)


def test_lower_bounds_hold():
    assert water_fill([1.0, 1.0, 1.0], [6.0, 0.0, 0.0], [8.0, 8.0, 1.0], 10.0) == pytest.approx([6.0, 3.0, 1.0])
    assert water_fill([1.0, 1.0], [2.0, 3.0], [9.0, 9.0], 1.0) == [2.0, 3.0]
    assert water_fill([1.0, 1.0], [2.0, 3.0], [9.0, 9.0], 18.0) == [9.0, 9.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=6),
    st.lists(st.floats(0, 40), min_size=6, max_size=6),
    st.floats(0, 1),
)
def test_whatever_the_targets_the_total_is_exact(sizes, targets, share):
    total = int(share * (sum(sizes) - len(sizes)))
    counts = apportion(sets(*(ramp(n) for n in sizes)), targets[: len(sizes)], total)
    assert sum(counts) == total
    assert all(0 <= c < n for c, n in zip(counts, sizes, strict=True))
