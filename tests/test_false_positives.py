"""How often the timing's verdict calls two equal things different: at most one time in twenty."""

import numpy as np
import pytest

from prunebench import timing
from prunebench.timing import compare

REPEATS = 200
ALLOWED = REPEATS // 20


@pytest.mark.parametrize("noise", ["steady", "outliers", "drifting"])
def test_two_equal_arms_are_rarely_called_different(monkeypatch, noise):
    rng = np.random.default_rng(0)
    clock = {"now": 0.0, "level": 1.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["now"])

    def arm():
        seconds = 0.01 * np.exp(rng.normal(0, 0.05))
        if noise == "outliers" and rng.uniform() < 0.1:
            seconds *= rng.uniform(1, 5)
        if noise == "drifting":
            clock["level"] *= np.exp(rng.normal(0, 0.02))
        clock["now"] += seconds * clock["level"]

    found = [compare({"dense": arm, "same": arm}, "dense", seconds=0.6, seed=i)["same"] for i in range(REPEATS)]
    different = sum(one.verdict in ("faster", "slower") for one in found)
    assert different <= ALLOWED
    # A rule that never says anything would pass as well.
    assert sum(one.verdict == "inconclusive" for one in found) >= REPEATS // 2


def test_the_same_rule_sees_a_difference_of_a_tenth(monkeypatch):
    rng = np.random.default_rng(1)
    clock = {"now": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["now"])

    def arm(level):
        def call():
            clock["now"] += level * np.exp(rng.normal(0, 0.03))

        return call

    found = [
        compare({"dense": arm(0.011), "less": arm(0.01)}, "dense", seconds=0.6, seed=i)["less"] for i in range(REPEATS)
    ]
    assert sum(one.verdict == "faster" for one in found) >= 0.9 * REPEATS
    assert not any(one.verdict == "slower" for one in found)


@pytest.mark.slow
def test_two_equal_products_on_the_real_clock_are_rarely_called_different(monkeypatch):
    monkeypatch.setattr(timing, "ARM_SECONDS", 0.001)  # shorter than in a measurement, so noisier
    x = np.random.default_rng(0).normal(size=(160, 160)).astype(np.float32)
    arms = {"dense": lambda: x @ x, "same": lambda: x @ x}
    found = [compare(arms, "dense", seconds=0.02, seed=i)["same"].verdict for i in range(REPEATS)]
    assert sum(verdict in ("faster", "slower") for verdict in found) <= ALLOWED
