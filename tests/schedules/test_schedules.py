"""Schedules against their formulas, and what a schedule must not do."""

import pytest

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
