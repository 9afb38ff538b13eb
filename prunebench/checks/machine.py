"""Checks of the machine: what it is, and how steadily it can time."""

from __future__ import annotations

from collections.abc import Iterator

from prunebench import machine
from prunebench.checks.check import OK, WARNING, Check
from prunebench.conditions import Conditions, conditions, noise
from prunebench.engine.build_info import build_info

NOISY = 0.05  # of the median: interleaved blocks bear more, but take longer for the same interval
STOLEN = 0.02
_STEADY = ("performance", "schedutil")


def machine_checks() -> Iterator[Check]:
    """The machine, its memory, and what disturbs a timing on it."""
    facts = machine.describe(build_info())
    found = f"{facts['id']}: {facts['cpu']}, {facts['cores']} cores, {facts['architecture']} {facts['system']}"
    yield Check("machine", "cpu", OK, found)
    if facts["memory_bytes"]:
        yield Check("machine", "memory", OK, f"{facts['memory_bytes'] / 2**30:.1f} GiB")
    yield Check("machine", "versions", OK, ", ".join(f"{k} {v}" for k, v in machine.versions().items()))
    yield from clock_checks(conditions(), facts["cores"])
    yield noise_check(noise())


def clock_checks(now: Conditions, cores: int) -> Iterator[Check]:
    """Governor, turbo, hyper-threads, quota, load and what a host takes; unknown where the system doesn't tell."""
    if now.governor is None:
        yield Check("timing", "governor", OK, "unknown: the system doesn't tell, as in most virtual machines")
    elif now.governor in _STEADY:
        yield Check("timing", "governor", OK, now.governor)
    else:
        remedy = "cpupower frequency-set -g performance, where you may"
        yield Check("timing", "governor", WARNING, f"{now.governor}: the clock may lag behind the work", remedy)
    turbo = {None: "unknown", True: "on: the clock depends on heat and neighbours; blocks are interleaved for that",
             False: "off"}  # fmt: skip
    yield Check("timing", "turbo", OK, turbo[now.turbo])
    smt = {None: "unknown", True: "on: two of the cores may share one; measure with half as many threads", False: "off"}
    yield Check("timing", "smt", OK, smt[now.smt])
    if now.quota is not None and now.quota < cores:
        remedy = f"give it whole CPUs, or measure with --threads {max(1, int(now.quota))}"
        found = f"{now.quota:g} of {cores} CPUs at a time: a container stops it in mid-measurement"
        yield Check("timing", "quota", WARNING, found, remedy)
    if now.load is not None:
        busy = now.load > 0.5 * cores + 0.5
        remedy = "stop what else runs, or expect `unstable` verdicts with several threads" if busy else ""
        yield Check("timing", "load", WARNING if busy else OK, f"{now.load:.1f} on {cores} cores", remedy)
    if now.stolen is not None and now.stolen > STOLEN:
        found = f"{100 * now.stolen:.1f} % of the time was taken by the host"
        yield Check(
            "timing", "stolen", WARNING, found, "measure on a machine of your own where you need narrow intervals"
        )


def noise_check(spread: float) -> Check:
    """What the same work varied by just now."""
    found = f"{100 * spread:.1f} %: nine tenths of equal pieces of work take at most so much longer than the median"
    if spread <= NOISY:
        return Check("timing", "noise", OK, found)
    return Check("timing", "noise", WARNING, found, "stop what else runs, then ask again")
