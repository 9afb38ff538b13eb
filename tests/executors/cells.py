"""Cells that train in a blink."""

from __future__ import annotations

from dataclasses import replace

from prunebench.cell import Cell
from prunebench.recipe import Recipe

RECIPE = Recipe(name="brief", batch_size=256, epochs=1, fine_tune_epochs=1, prune_rounds=1)
CONTROL = Cell("digits:size=8", "lenet300", recipe=RECIPE)


def cell(sparsity=0.5, criterion="l1", seed=0, **changes):
    """A pruned cell that trains in a blink."""
    base = replace(CONTROL, criterion=criterion, granularity="weight", scope="global", schedule="one_shot", seed=seed)
    return replace(base, sparsity=sparsity, **changes)
