"""What only claims need: a network with all of its weights masked, and single layers through SciPy."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench import backends, machine
from prunebench.answers import answer, measured
from prunebench.measuring.arms import network_input, pruned_copy, random_network
from prunebench.measuring.grid import Measured
from prunebench.measuring.layers import HISTORY_SECONDS, LayerBench, layer_input, layer_model
from prunebench.questions import ClaimCase
from prunebench.reference import Reference
from prunebench.timing import compare

if TYPE_CHECKING:
    from torch import nn


class ClaimBench:
    """Measures cases one after another, each against dense torch in interleaved blocks."""

    def __init__(self, timing_seconds: float = 1.0) -> None:
        self.timing_seconds = timing_seconds
        self._layers = LayerBench(timing_seconds)

    def measure(self, case: ClaimCase) -> Measured:
        """Everything about a case; raises CheckFailed where the output is wrong, before any timing."""
        from prunebench.costs import count

        with machine.threads(case.threads):
            if case.layer is not None:
                pruned = layer_model(case.layer.layer, case.sparsity)
                x = layer_input(case.layer.layer, case.batch_size)
                baseline, call = self._layers.baseline(case.layer, pruned, x)
                dense = backends.compile(pruned, x, "dense", case.threads)
            else:
                whole = random_network(case.model)
                pruned = masked_copy(whole, case.sparsity)
                x = network_input(case.model, case.batch_size)
                # Masks change nothing about a layout: the network is compared with itself, unpruned, in the same one.
                baseline, dense = "dense", backends.compile(whole, x, "dense", case.threads)
                call = partial(dense, x)
            executor = backends.compile(pruned, x, case.backend, case.threads)
            error = Reference(pruned, x).check(executor, case.id)
            found = compare({baseline: call, "it": partial(executor, x)}, baseline, seconds=self.timing_seconds)
            costs = count(pruned, x[:1])
        facts = answer(
            "claims",
            case,
            relative_error=error,
            dense_resident_bytes=int(dense.nbytes),
            **measured(costs, int(executor.nbytes), found["it"], baseline),
        )
        return Measured(facts, partial(executor, x), HISTORY_SECONDS)

    def failed(self, case: ClaimCase, reason: str, status: str = "failed") -> dict[str, Any]:
        """The facts of a case that could not be measured."""
        return answer("claims", case, status, reason=reason)


def masked_copy(model: nn.Module, sparsity: float) -> nn.Module:
    """A copy pruned layer by layer by magnitude; at sparsity 1 every conv and linear weight is zero."""
    from prunebench.masks import held_weights

    if sparsity < 1:
        return pruned_copy(model, sparsity)
    twin = copy.deepcopy(model)
    for _, module, name in held_weights(twin):
        getattr(module, name).zero_()
    return twin
