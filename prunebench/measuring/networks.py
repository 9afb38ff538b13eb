"""One network measured: the engine, pruned and unpruned, against every dense way to run it, all in the same blocks.

On one thread all arms share this process. On several each has its own: the idle threads of one runtime would spin, and
hold the core that another's need.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prunebench import backends, machine
from prunebench.answers import answer, arm, measured
from prunebench.errors import BackendUnavailable, PrunebenchError
from prunebench.measuring.arms import (
    UNPRUNED,
    Prepared,
    network_input,
    prepared_apart,
    prepared_here,
    pruned_copy,
    random_network,
    ways,
    worker,
)
from prunebench.measuring.grid import Measured
from prunebench.measuring.workers import WorkerFailed
from prunebench.questions import NetworkCase, input_of
from prunebench.reference import TOLERANCE, Reference, within
from prunebench.timing import Arm, Comparison, judge_all, sample

if TYPE_CHECKING:
    from torch import nn

TRIAL_SHARE = 0.1  # of the time of a measurement
TRIAL_BLOCKS = 2  # at least, and an arm's better one counts: a single unlucky turn would drop the fastest
DROPPED_ABOVE = 1.35  # a dense arm this much slower than the fastest in the trial is timed no further
SETTLE_SECONDS = 0.02  # threads of OpenMP, ONNX Runtime and OpenVINO spin for a while after their work
# Threads that have slept wake on the core of whoever wakes them: until the system moves them, two of them share one.
TEAM_SECONDS = 0.05
TEAM_SHARE = 3  # and so a measurement takes as many times as long


class NetworkBench:
    """Measures networks one after another; keeps the last unpruned one."""

    def __init__(self, timing_seconds: float = 3.0) -> None:
        self.timing_seconds = timing_seconds
        self._last: tuple[str, nn.Module] | None = None

    def measure(self, case: NetworkCase) -> Measured:
        """Everything about a case; raises CheckFailed where the engine's output is wrong, before any timing."""
        from prunebench import formats
        from prunebench.costs import count

        dense = self._dense(case.model)
        pruned = pruned_copy(dense, case.sparsity)
        x = network_input(case.model, case.batch_size)
        with machine.threads(case.threads):
            rights = {False: Reference(dense, x), True: Reference(pruned, x)}
            models = {False: dense, True: pruned}
            with ExitStack() as processes:
                arms, ready = _prepared(case, models, rights, processes)
                result, baseline = self._timed(case, arms, {name: one.arm for name, one in ready.items()})
            call = ready[case.backend].arm
            if case.threads > 1:  # its process is gone: what the history times further is compiled anew, and checked
                engine = backends.compile(pruned, x, case.backend, case.threads)
                rights[True].check(engine, case.id)
                call = partial(engine, x)
            costs = count(pruned, x[:1])
        facts = answer(
            "networks",
            case,
            input_shape=list(input_of(case.model)[0]),
            arms=arms,
            relative_error=arms[case.backend]["relative_error"],
            disk_bytes=len(formats.to_bytes(pruned.state_dict())),
            dense_disk_bytes=len(formats.to_bytes(dense.state_dict(), "dense")),
            **measured(costs, ready[case.backend].nbytes, result, baseline),
        )
        return Measured(facts, call)

    def failed(self, case: NetworkCase, reason: str, status: str = "failed") -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        return answer("networks", case, status, reason=reason)

    def _dense(self, model: str) -> nn.Module:
        if self._last is None or self._last[0] != model:
            self._last = (model, random_network(model))
        return self._last[1]

    def _timed(self, case: NetworkCase, arms: dict[str, Any], calls: dict[str, Arm]) -> tuple[Comparison, str]:
        """Time every arm, write what came out into `arms`; returns the engine's comparison and its baseline's name."""
        while True:
            try:
                return self._compared(case, arms, calls)
            except WorkerFailed as lost:
                if lost.worker == case.backend:
                    raise PrunebenchError(f"{case.id}: {lost}") from lost
                # Its blocks were cut off, and who waits for it measured nothing: all begin again without it.
                arms[lost.worker].update(status="failed", reason=str(lost))
                del calls[lost.worker]

    def _compared(self, case: NetworkCase, arms: dict[str, Any], calls: dict[str, Arm]) -> tuple[Comparison, str]:
        pace: Any = {"settle": SETTLE_SECONDS, "arm_seconds": TEAM_SECONDS} if case.threads > 1 else {}
        ours = {case.backend, UNPRUNED}
        first = next((name for name in calls if name not in ours), None)
        if first is None:
            raise PrunebenchError(f"{case.id}: no dense way to run {case.model} is left to compare with")
        trial = sample(calls, first, seconds=TRIAL_SHARE * self.timing_seconds, least=TRIAL_BLOCKS, **pace)
        control = _fastest(trial, calls, ours)
        limit = DROPPED_ABOVE * np.median(trial[control])
        kept = {n: c for n, c in calls.items() if n in ours or min(trial[n]) <= limit}
        seconds = self.timing_seconds * (TEAM_SHARE if pace else 1)
        samples = sample(kept, control, seconds=seconds, **pace)
        # Which one is the fastest is decided by the blocks that count: the trial only chose whom to time on.
        baseline = _fastest(samples, kept, ours)
        found = judge_all(samples, baseline, control)
        fastest = float(np.median(samples[baseline]))
        for name in calls:
            if name in found:
                c = found[name]
                seen: dict[str, Any] = {
                    "seconds": c.seconds, "speedup": c.speedup, "speedup_low": c.low, "speedup_high": c.high,
                    "verdict": c.verdict, "blocks": c.blocks,
                }  # fmt: skip
            elif name == baseline:
                seen = {"seconds": fastest, "speedup": 1.0, "blocks": len(samples[baseline])}
            else:
                seconds = float(np.median(trial[name]))
                seen = {"seconds": seconds, "speedup": fastest / seconds, "blocks": len(trial[name])}
            arms[name].update(seen)
        return found[case.backend], baseline


def _fastest(samples: dict[str, list[float]], names: Any, ours: set[str]) -> str:
    return min((name for name in names if name not in ours), key=lambda name: float(np.median(samples[name])))


def _prepared(
    case: NetworkCase, models: dict[bool, nn.Module], rights: dict[bool, Reference], processes: ExitStack
) -> tuple[dict[str, Any], dict[str, Prepared]]:
    """(facts of every arm, those whose output is right); models and references by whether they are pruned."""
    arms: dict[str, Any] = {}
    ready: dict[str, Prepared] = {}
    found = ways(case, any(w.ndim == 4 for w in models[False].parameters()))
    off = {backend: backends.unavailable(backend) for backend in dict.fromkeys(way.backend for way in found)}
    # All start up at once, then build one after another: compilers measure, and memory peaks one at a time.
    own = [way for way in found if case.threads > 1 and off[way.backend] is None]
    started = {way.name: processes.enter_context(worker(way, case)) for way in own}
    process = "own" if case.threads > 1 else "shared"
    for waking in started.values():
        waking.awake()
    for way in found:
        ours = way.name in (UNPRUNED, case.backend)
        try:
            if (reason := off[way.backend]) is not None:
                raise BackendUnavailable(reason)
            right = rights[way.pruned]
            if way.name in started:
                one = prepared_apart(way, case, started[way.name], right)
            else:
                one = prepared_here(way, case, models[way.pruned], right)
        except BackendUnavailable as why:
            if ours:
                raise
            arms[way.name] = arm("off", reason=str(why))
            continue
        except WorkerFailed as lost:
            if way.name == case.backend:
                raise PrunebenchError(f"{case.id}: {lost}") from lost
            arms[way.name] = arm("failed", reason=str(lost), process=process)
            continue
        if ours:
            within(one.error, f"{case.id} ({way.name})")
        about = {"relative_error": one.error, "process": process, **one.facts}
        if one.error <= TOLERANCE:
            arms[way.name] = arm(**about)
            ready[way.name] = one
        else:
            arms[way.name] = arm("failed", reason=f"differs from the float64 reference by {one.error:.1e}", **about)
    return arms, ready
