"""Verdicts over numbers against SciPy and by hand; how often they are wrong, by simulation at the edge."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from prunebench.statistics import (
    HOLDS,
    REFUTED,
    UNDECIDED,
    UNSTABLE,
    Estimate,
    crossing,
    equivalence,
    geometric,
    holm,
    interpolate,
    inverse,
    mean_interval,
    ordering,
    overall,
    p_above,
    quotient,
    reaching_one,
    within,
)

SETS = 2000
# What a true rate of 5 % gives in so many simulated data sets, but for one time in a thousand.
FIVE_PERCENT = stats.binom.ppf(0.999, SETS, 0.05) / SETS


def draws(n, sets=SETS, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (sets, n))


@pytest.mark.parametrize("values", [[0.001, 0.002, 0.003], [5.0, -1.0], list(draws(12)[0])])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_is_student_s(values, confidence):
    found = mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.value, found.n) == (pytest.approx(np.mean(values)), len(values))


def test_one_value_says_nothing_about_its_spread_and_none_is_an_error():
    assert mean_interval([0.3], 0.9) == Estimate(0.3, -math.inf, math.inf, 1)
    with pytest.raises(ValueError, match="needs a value"):
        mean_interval([], 0.9)


@pytest.mark.parametrize("values", [[0.001, 0.002, 0.003], [5.0, -1.0], list(draws(12)[0])])
@pytest.mark.parametrize("bound", [0.0, -0.5, 2.0])
def test_p_is_that_of_a_one_sided_t_test(values, bound):
    expected = stats.ttest_1samp(values, bound, alternative="greater").pvalue
    assert p_above(values, bound) == pytest.approx(expected, rel=1e-9)


def test_p_without_a_spread_or_without_values():
    """Equal counts out of 10,000 may differ by their rounding: a deviation of 1e-4/√12, so a count more is no proof."""
    assert 0.0 < p_above([1.0, 1.0, 1.0], 0.0) < 1e-9
    assert p_above([1.0, 1.0, 1.0], 2.0) == pytest.approx(1.0)
    assert p_above([1.0, 1.0], 1.0) == 0.5
    # t = 1e-4/(2.887e-5/√3) = 6 with two degrees of freedom
    assert p_above([1e-4] * 3, 0.0) == pytest.approx(stats.t.sf(6.0, 2), rel=1e-9)
    assert mean_interval([0.01] * 3, 0.9).high == pytest.approx(0.01 + 2.919986 * 1e-4 / 6, abs=1e-10)
    assert p_above([9.0], 0.0) == 1.0


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.005, HOLDS), (0.003, UNDECIDED), (0.0003, REFUTED), (0.0004, UNDECIDED)]
)
def test_equivalence_by_hand(margin, verdict):
    # mean 0.002, s 0.001, s/√3 = 0.00057735, t(2, 0.95) = 2.919986: 0.002 ± 0.0016858.
    found, estimate = equivalence([0.001, 0.002, 0.003], margin)
    assert found == verdict
    assert (estimate.low, estimate.high) == (pytest.approx(0.0003142, abs=1e-7), pytest.approx(0.0036858, abs=1e-7))


def test_equivalence_is_two_one_sided_tests():
    for values in draws(4, 300):
        both = p_above(values, -1.2) <= 0.05 and p_above(-values, -1.2) <= 0.05
        assert (equivalence(values, 1.2)[0] == HOLDS) == both


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("spread", [0.02, 0.3, 2.0])
def test_at_the_margin_s_edge_equivalence_is_claimed_at_most_one_time_in_twenty(n, spread):
    sets = 1 + spread * draws(n)
    assert sum(equivalence(values, 1.0)[0] == HOLDS for values in sets) / SETS <= FIVE_PERCENT


def test_equivalence_is_refuted_at_the_edge_at_most_one_time_in_twenty_and_found_where_it_is():
    assert sum(equivalence(values, 1.0)[0] == REFUTED for values in 1 + 0.3 * draws(3)) / SETS <= FIVE_PERCENT
    assert sum(equivalence(values, 1.0)[0] == HOLDS for values in 0.1 * draws(3)) / SETS > 0.99
    assert sum(equivalence(values, 1.0)[0] == REFUTED for values in 3 + 0.3 * draws(3)) / SETS > 0.99


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.04, 0.2 times 4, 3, 2, 1; never below the one before
    assert holm([0.04, 0.01, 0.2, 0.02]) == pytest.approx([0.08, 0.04, 0.2, 0.06])
    assert holm([0.01, 0.012]) == pytest.approx([0.02, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_between_the_raw_ps_and_bonferroni_s_and_keeps_their_order():
    for ps in np.random.default_rng(1).uniform(0, 1, (200, 6)):
        adjusted = holm(ps.tolist())
        assert all(p <= a <= min(1.0, 6 * p) + 1e-12 for p, a in zip(ps, adjusted, strict=True))
        assert all(a <= b for a, b in pairwise(np.array(adjusted)[np.argsort(ps)]))


def test_ordering_says_which_members_are_above_below_or_neither():
    family = [[0.02, 0.021, 0.019], [-0.02, -0.021, -0.019], [0.02, -0.02, 0.001], [0.02, 0.02]]
    assert [verdict for verdict, _ in ordering(family, 0.0)] == [HOLDS, REFUTED, UNDECIDED, UNDECIDED]


def test_what_is_not_measured_makes_the_rest_no_easier():
    own = [0.01, 0.02, 0.03]  # p = 0.037: enough alone, not among two
    assert ordering([own], 0.0)[0] == (HOLDS, pytest.approx(0.0371, abs=1e-4))
    assert ordering([own, []], 0.0)[0] == (UNDECIDED, pytest.approx(0.0742, abs=1e-4))
    assert ordering([own, []], 0.0) == ordering([own, [0.02]], 0.0)


@pytest.mark.parametrize("wrong", [HOLDS, REFUTED])
def test_a_family_at_its_bound_is_wrong_at_most_one_time_in_twenty(wrong):
    families = 0.5 + 0.2 * np.random.default_rng(3).normal(0, 1, (SETS, 5, 4))
    bad = sum(any(verdict == wrong for verdict, _ in ordering(family, 0.5)) for family in families.tolist())
    assert bad / SETS <= FIVE_PERCENT


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((1.2, 2.1), HOLDS),
        ((1.19, 2.0), UNDECIDED),
        ((1.3, 2.2), UNDECIDED),
        ((1.0, 1.19), REFUTED),
        ((2.2, 3.0), REFUTED),
        ((1.0, 9.0), UNDECIDED),
    ],
)
def test_a_range_holds_only_where_all_of_the_interval_lies_in_it(ends, verdict):
    assert within(Estimate(1.5, *ends, 3), 1.2, 2.1) == verdict


def test_ratios_are_combined_carefully():
    first, second = Estimate(2.0, 1.8, 2.2, 1), Estimate(8.0, 7.0, 9.0, 1)
    assert geometric([first, second]) == Estimate(pytest.approx(4.0), 1.8, 9.0, 2)
    assert quotient(second, first) == Estimate(4.0, 7.0 / 2.2, 9.0 / 1.8, 1)
    assert inverse(first) == Estimate(0.5, 1 / 2.2, 1 / 1.8, 1)
    assert reaching_one(first) == Estimate(2.0, 1.0, 2.2, 1)
    assert reaching_one(Estimate(0.9, 0.8, 0.95, 1)) == Estimate(0.9, 0.8, 1.0, 1)
    with pytest.raises(ValueError, match="needs a ratio"):
        geometric([])


def test_lines_between_points_and_never_beyond():
    points = [(3.0, 30.0), (1.0, 10.0), (2.0, 0.0)]
    assert [interpolate(points, x) for x in (1.0, 1.5, 2.5, 3.0)] == [10.0, 5.0, 15.0, 30.0]
    assert interpolate(points, 0.99) is None
    assert interpolate(points, 3.01) is None
    assert interpolate([(1.0, 4.0)], 1.0) == 4.0
    assert interpolate([], 1.0) is None
    assert crossing((0.8, 0.8), (0.9, 2.0), 1.0) == pytest.approx(0.8 + 0.1 * 0.2 / 1.2)


@pytest.mark.parametrize(
    ("verdicts", "every", "some"),
    [
        ([HOLDS, HOLDS], HOLDS, HOLDS),
        ([HOLDS, REFUTED, UNSTABLE], REFUTED, HOLDS),
        ([REFUTED, REFUTED], REFUTED, REFUTED),
        ([HOLDS, UNDECIDED], UNDECIDED, HOLDS),
        ([UNDECIDED, UNSTABLE], UNSTABLE, UNSTABLE),
        ([REFUTED, UNDECIDED], REFUTED, UNDECIDED),
        ([], UNDECIDED, UNDECIDED),
    ],
)
def test_many_verdicts_as_one(verdicts, every, some):
    assert (overall(verdicts), overall(verdicts, "any")) == (every, some)
