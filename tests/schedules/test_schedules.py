"""Schedules against their formulas, and what a schedule must not do."""

import itertools

import pytest
from torch import nn

import prunebench as pb
from prunebench import schedules
from prunebench.errors import PluginError, UsageError

TIMES = [k / 17 for k in range(18)]


def test_agp_is_zhu_and_gupta_s_cubic():
    assert [pb.schedules.agp(t) for t in (0, 0.5, 1)] == [0, 0.875, 1]
    assert [schedules.share("agp", t) for t in TIMES] == pytest.approx([1 - (1 - t) ** 3 for t in TIMES])


def test_linear_and_one_shot():
    assert [schedules.share("linear", t) for t in TIMES] == TIMES
    assert {schedules.share("one_shot", t) for t in TIMES} == {1.0}


@pytest.mark.parametrize("power", [0.5, 1, 2, 3, 7])
def test_polynomial_by_hand(power):
    assert [schedules.share(f"polynomial:power={power}", t) for t in TIMES] == pytest.approx(
        [1 - (1 - t) ** power for t in TIMES]
    )
    assert [pb.schedules.polynomial(t) for t in TIMES] == [pb.schedules.agp(t) for t in TIMES]
    assert [pb.schedules.polynomial(t, power=1) for t in TIMES] == pytest.approx(TIMES)


def test_cosine_by_hand():
    assert [schedules.share("cosine", t) for t in (0, 1 / 3, 0.5, 2 / 3, 1)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("final", [1e-12, 0.2, 0.9, 0.999])
def test_geometric_removes_the_same_fraction_of_what_is_left(final):
    left = [1 - final * schedules.share("geometric", k / 10, final) for k in range(11)]
    fractions = [b / a for a, b in itertools.pairwise(left)]
    assert fractions == pytest.approx([(1 - final) ** 0.1] * 10, rel=1e-12)
    assert schedules.share("geometric", 1.0, final) == 1.0


def test_geometric_is_a_lottery_ticket_s_rounds():
    # Frankle & Carbin: 20 % of what is left goes in each round.
    final = 1 - 0.8**12
    assert [1 - final * pb.schedules.geometric(k / 12, final) for k in range(13)] == pytest.approx(
        [0.8**k for k in range(13)]
    )


def test_without_a_target_geometric_takes_its_own():
    assert schedules.share("geometric", 0.5) == pb.schedules.geometric(0.5, 0.9) == pytest.approx((1 - 0.1**0.5) / 0.9)
    assert schedules.share("geometric:sparsity=0.5", 0.5, 0.9) == pb.schedules.geometric(0.5, 0.5)
    assert pb.schedules.geometric(0.25, 0.0) == 0.25


def test_a_schedule_that_asks_for_the_sparsity_gets_it(registry_sandbox):
    pb.schedule("asking")(lambda t, sparsity=0.5: t * sparsity if t < 1 else 1.0)
    assert schedules.share("asking", 0.5, 0.8) == 0.4
    assert schedules.share("asking", 0.5) == 0.25


def polynomial_decay(step, initial, final, begin, end, power, frequency):
    """The sparsity after `step` as tfmot's PolynomialDecay defines it, updated where it says so."""
    asked = [k for k in range(begin, min(step, end) + 1) if (k - begin) % frequency == 0]
    progress = (asked[-1] - begin) / (end - begin)
    return (initial - final) * (1 - progress) ** power + final


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize(("end", "frequency"), [(20, 1), (20, 4), (20, 5), (23, 4), (10, 7)])
def test_a_pruner_follows_polynomial_decay_step_by_step_and_ends_at_the_target(power, end, frequency):
    weights, final = 10_000, 0.83
    model = nn.Linear(weights, 1)
    schedule = {1: "linear", 2: "polynomial:power=2", 3: "agp"}[power]
    pruner = pb.Pruner(model, final, schedule=schedule, steps=end, every=frequency)
    for step in range(1, end + 1):
        pruner.step()
        asked = polynomial_decay(step, 0.0, final, 0, end, power, frequency)
        zeros = int((model.weight == 0).sum())
        if step < end:
            assert abs(zeros - weights * asked) <= 0.5 + 1e-6
    assert zeros == 8300
    # The trap: where the end is no multiple of the frequency, the formula stops short of its final sparsity.
    assert (asked == final) == (end % frequency == 0)


@pytest.mark.parametrize("t", [-0.01, 1.01, float("nan")])
def test_progress_outside_zero_to_one_is_refused(t):
    with pytest.raises(UsageError, match=r"outside \[0, 1\]"):
        schedules.share("agp", t)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda t: t + 0.5, "1.5"),
        (lambda t: -t, "-1"),
        (lambda t: 0.99 * t, "0.99"),
        (lambda t: None, "raised"),
        (lambda t: 1 / (t - 1), "raised"),
    ],
)
def test_a_schedule_that_can_not_be_is_named(function, words, registry_sandbox):
    pb.schedule("odd")(function)
    with pytest.raises(PluginError, match=words) as error:
        schedules.share("odd", 1.0)
    assert "'odd'" in str(error.value)
