"""Verdicts follow from samples by rule; the loop is driven by a clock made of numbers, so nothing here is timed."""

import gc
import math

import numpy as np
import pytest

from prunebench import timing
from prunebench.timing import MIN_BLOCKS, compare, interval, judge, judge_control

STEADY = (0.001, True)  # A/A half-width and stability


def noisy(level, n=40, spread=0.01, seed=0):
    return (level * np.exp(np.random.default_rng(seed).normal(0, spread, n))).tolist()


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (2.0, "faster"),
        (1.1, "faster"),
        (0.5, "slower"),
        (0.9, "slower"),
        (1.0, "inconclusive"),
        (1.005, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_interval(ratio, verdict):
    result = judge(noisy(1.0), noisy(1.0 / ratio, seed=1), STEADY, "dense", 0)
    assert result.verdict == verdict
    assert result.low <= ratio <= result.high
    assert result.low <= result.speedup <= result.high
    assert result.speedup == pytest.approx(ratio, rel=0.01)
    assert (result.baseline, result.blocks) == ("dense", 40)


def test_times_are_medians_and_every_ratio_is_kept():
    result = judge([1.0, 2.0, 9.0] * 3, [0.5, 1.0, 3.0] * 3, STEADY, "dense", 0)
    assert (result.baseline_seconds, result.seconds) == (2.0, 1.0)
    assert result.ratios == pytest.approx([2.0, 2.0, 3.0] * 3)


def test_a_difference_within_the_control_s_own_width_is_inconclusive():
    base, arm = noisy(1.0), noisy(1 / 1.1, seed=1)
    assert judge(base, arm, (0.001, True), "dense", 0).verdict == "faster"
    assert judge(base, arm, (0.2, True), "dense", 0).verdict == "inconclusive"
    assert judge(arm, base, (0.2, True), "dense", 0).verdict == "inconclusive"


def test_one_percent_is_never_a_difference():
    assert judge([1.0] * 20, [1 / 1.009] * 20, (0.0, True), "dense", 0).verdict == "inconclusive"
    assert judge([1.0] * 20, [1 / 1.011] * 20, (0.0, True), "dense", 0).verdict == "faster"


def test_a_wide_interval_is_inconclusive():
    arm = [0.5, 2.0] * 10
    assert judge([1.0] * 20, arm, STEADY, "dense", 0).verdict == "inconclusive"


def test_too_few_blocks_decide_nothing():
    assert judge([1.0] * (MIN_BLOCKS - 1), [0.5] * (MIN_BLOCKS - 1), STEADY, "dense", 0).verdict == "inconclusive"
    assert judge([1.0] * MIN_BLOCKS, [0.5] * MIN_BLOCKS, STEADY, "dense", 0).verdict == "faster"


def test_a_control_that_misses_one_makes_all_unstable():
    width, stable = judge_control(noisy(1.0), noisy(1.05, seed=1), 0)
    assert not stable
    assert judge(noisy(1.0), noisy(0.5, seed=2), (width, stable), "dense", 0).verdict == "unstable"
    assert not judge_control(noisy(1.05, seed=1), noisy(1.0), 0)[1]


def test_a_control_that_covers_one_is_stable():
    width, stable = judge_control(noisy(1.0), noisy(1.0, seed=1), 0)
    assert stable
    assert 0 < width < 0.02


def test_drift_is_unstable():
    arm = noisy(0.5, 10) + noisy(0.8, 10, seed=1)
    assert judge([1.0] * 20, arm, STEADY, "dense", 0).verdict == "unstable"
    assert judge([1.0] * 20, arm[::2] + arm[1::2], STEADY, "dense", 0).verdict != "unstable"


def test_a_slow_slide_is_unstable():
    arm = (np.linspace(1, 2, 40) * noisy(0.3)).tolist()
    assert judge([1.0] * 40, arm, STEADY, "dense", 0).verdict == "unstable"


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_is_no_drift(seed):
    assert judge(noisy(1.0, seed=seed), noisy(0.5, spread=0.05, seed=seed + 9), STEADY, "dense", 0).verdict == "faster"


def test_a_machine_that_slows_down_for_both_alike_is_no_drift():
    slowdown = np.linspace(1, 3, 40)
    result = judge((noisy(1.0) * slowdown).tolist(), (noisy(0.5, seed=1) * slowdown).tolist(), STEADY, "dense", 0)
    assert result.verdict == "faster"
    assert result.speedup == pytest.approx(2.0, rel=0.01)


def test_an_outlier_block_moves_nothing():
    arm = noisy(0.5)
    arm[7] *= 100
    assert judge(noisy(1.0, seed=1), arm, STEADY, "dense", 0).verdict == "faster"


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        _, low, high = interval(rng.normal(0.7, 0.1, 30), i, 300)
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 1.0


def test_the_interval_is_decided_by_its_seed():
    logs = np.random.default_rng(0).normal(0, 1, 30)
    assert interval(logs, 3) == interval(logs, 3)
    assert interval(logs, 3)[1:] != interval(logs, 4)[1:]
    middle, low, high = interval(np.full(9, 0.25), 0)
    assert (middle, low, high) == (0.25, 0.25, 0.25)


class Clock:
    """perf_counter that only moves when an arm runs."""

    def __init__(self, monkeypatch):
        self.now, self.order = 100.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def arm(self, name, seconds):
        def call():
            self.order.append(name)
            self.now += seconds

        return call


def test_compare_measures_what_the_clock_says(monkeypatch):
    clock = Clock(monkeypatch)
    arms = {"dense": clock.arm("dense", 0.02), "csr": clock.arm("csr", 0.01), "scipy": clock.arm("scipy", 0.08)}
    found = compare(arms, "dense", seconds=0.0)
    assert set(found) == {"csr", "scipy"}
    assert found["csr"].speedup == pytest.approx(2.0)
    assert found["csr"].verdict == "faster"
    assert found["csr"].seconds == pytest.approx(0.01)
    assert found["csr"].baseline_seconds == pytest.approx(0.02)
    assert found["scipy"].speedup == pytest.approx(0.25)
    assert found["scipy"].verdict == "slower"
    assert found["csr"].blocks == MIN_BLOCKS


def test_a_block_runs_every_arm_once_and_the_baseline_twice_in_changing_order(monkeypatch):
    clock = Clock(monkeypatch)
    compare({"dense": clock.arm("d", 1.0), "csr": clock.arm("c", 1.0)}, "dense", seconds=0.0)
    timed = clock.order[3:]  # one call per arm, slow as they are, sizes the inner loops
    blocks = ["".join(timed[i : i + 3]) for i in range(0, len(timed), 3)]
    assert len(blocks) == MIN_BLOCKS
    assert all(sorted(block) == ["c", "d", "d"] for block in blocks)
    assert len(set(blocks)) > 1


def test_short_arms_are_looped(monkeypatch):
    clock = Clock(monkeypatch)
    compare({"dense": clock.arm("d", 0.001), "csr": clock.arm("c", 1.0)}, "dense", seconds=0.0)
    assert clock.order.count("c") == 1 + MIN_BLOCKS
    assert clock.order.count("d") == 2 * (2 + MIN_BLOCKS * math.ceil(timing.ARM_SECONDS / 0.001))


def test_precise_runs_end_early_and_noisy_ones_use_their_time(monkeypatch):
    clock = Clock(monkeypatch)
    steady = compare({"dense": clock.arm("d", 0.01), "csr": clock.arm("c", 0.01)}, "dense", seconds=1e6)
    assert steady["csr"].blocks == 8
    rng = np.random.default_rng(0)

    def erratic():
        clock.now += 0.01 * math.exp(rng.normal(0, 2))

    wild = compare({"dense": clock.arm("d", 0.01), "csr": erratic}, "dense", seconds=5.0)
    assert wild["csr"].blocks > 20


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_off_meanwhile_and_left_as_found(monkeypatch, enabled):
    clock = Clock(monkeypatch)
    states = []

    def spy():
        states.append(gc.isenabled())
        clock.now += 1.0

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        compare({"dense": clock.arm("d", 1.0), "csr": spy}, "dense", seconds=0.0)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert not any(states[2:])


def test_samples_hold_every_arm_and_the_control_twice(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: setattr(clock, "now", clock.now + seconds))
    samples = timing.sample(
        {"a": clock.arm("a", 0.01), "b": clock.arm("b", 0.02)}, "b", seconds=0.0, least=2, settle=9.0
    )
    assert set(samples) == {"a", "b", timing.CONTROL}
    assert all(len(values) == 2 for values in samples.values())
    assert samples["a"] == pytest.approx([0.01, 0.01])  # the pause before an arm's turn is not its time
    assert samples[timing.CONTROL] == pytest.approx([0.02, 0.02])


class SelfTimed:
    """An arm that takes the time of its loops itself."""

    def __init__(self, clock, name, seconds):
        self.clock, self.name, self.seconds, self.loops = clock, name, seconds, []

    def seconds_per_call(self, loops):
        self.clock.order.append(self.name)
        self.clock.now += 1000.0  # the way there and back is no time of the arm
        self.loops.append(loops)
        return self.seconds


def test_an_arm_may_time_its_own_loops_in_the_same_order_as_any(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    arms = {name: SelfTimed(clock, name, seconds) for name, seconds in {"a": 0.001, "b": 1.0}.items()}
    first = timing.sample(arms, "b", seconds=0.0)
    assert set(first["a"]) == {0.001}
    assert set(first["b"]) == set(first[timing.CONTROL]) == {1.0}
    assert arms["a"].loops == [1, 1] + [5] * MIN_BLOCKS
    plain, mine = Clock(monkeypatch), clock.order
    timing.sample({name: plain.arm(name, arm.seconds) for name, arm in arms.items()}, "b", seconds=0.0)
    looped = [plain.order[0], *(n for before, n in zip(plain.order, plain.order[1:], strict=False) if n != before)]
    assert [n for n, before in zip(mine, [None, *mine], strict=False) if n != before] == looped


def test_every_arm_that_is_not_slow_is_woken_after_the_pause(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    arms = {name: SelfTimed(clock, name, seconds) for name, seconds in {"a": 0.001, "b": 0.05, "c": 1.0}.items()}
    timing.sample(arms, "c", seconds=0.0, settle=0.02)
    assert arms["a"].loops == [1, 1] + [5, 5] * MIN_BLOCKS
    assert arms["b"].loops == [1, 1] + [1, 1] * MIN_BLOCKS  # or a peer's call would pay for waking, and a shorter not
    assert arms["c"].loops == [1] * (2 + 2 * MIN_BLOCKS)  # sized by its first call; it is the control as well


def test_a_loop_lasts_as_long_as_asked(monkeypatch):
    arms = {"a": SelfTimed(Clock(monkeypatch), "a", 0.001), "b": SelfTimed(Clock(monkeypatch), "b", 0.02)}
    timing.sample(arms, "b", seconds=0.0, arm_seconds=0.05)
    assert arms["a"].loops[2:] == [50] * MIN_BLOCKS
    assert arms["b"].loops[2:4] == [1, 1]
    assert set(arms["b"].loops[4:]) == {3}


def test_the_baseline_need_not_be_the_control(monkeypatch):
    clock = Clock(monkeypatch)
    arms = {"a": clock.arm("a", 0.02), "b": clock.arm("b", 0.04), "c": clock.arm("c", 0.01)}
    samples = timing.sample(arms, "b", seconds=0.0)
    found = timing.judge_all(samples, "a", "b")
    twice = [first / second for first, second in zip(samples["b"], samples[timing.CONTROL], strict=True)]
    assert all(one.control_ratios == pytest.approx(twice) for one in found.values())
    assert set(found) == {"b", "c"}
    assert found["c"].speedup == pytest.approx(2.0)
    assert (found["b"].verdict, found["c"].verdict) == ("slower", "faster")
    assert found["c"].baseline == "a"
