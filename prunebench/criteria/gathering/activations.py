"""Need `activations`: a layer's inputs as they came, of the first samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunebench.criteria.gathering.inputs import watch
from prunebench.criteria.gathering.run import Run

# Layer inputs are kept for at most this many samples, so that memory stays bounded on large data.
ACTIVATION_SAMPLES = 256


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: (samples, …) float32}: at most ACTIVATION_SAMPLES inputs of each layer, in the data's order."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}

    def see(name: str, module: Any, x: Tensor, out: Tensor) -> None:
        room = ACTIVATION_SAMPLES - sum(len(part) for part in kept[name])
        if room > 0:
            # Copied, because an in-place operation may follow.
            kept[name].append(x[:room].to(torch.float32, copy=True))

    watch(run, names, see)
    return {name: torch.cat(parts) for name, parts in kept.items()}
