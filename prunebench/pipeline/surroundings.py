"""What surrounds a training's loop, back from a kept state: masks, sums, counts. Anybody may have written the file.

The file's digest tells damage; what is checked here is that the values are such as this training keeps, so that none
of them ends it, or the whole run, hours later. Everything raises UnfitState.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError, reason
from prunebench.masks import prunable_modules
from prunebench.training.state import UnfitState

if TYPE_CHECKING:
    import torch

    from prunebench.pipeline.unfinished import Unfinished
    from prunebench.pruner import Pruner


def restore_pruner(pruner: Pruner, kept: Unfinished, device: str) -> None:
    """Its masks, share of the final sparsity, record of prunings, and what watched the training."""
    assert kept.values is not None
    masks, share = kept.more("mask."), kept.values.get("share")
    sizes = {name: module.weight.numel() for name, module in prunable_modules(pruner.model).items()}
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise UnfitState(f"its share of the sparsity is {share!r}")
    if share and not masks:
        raise UnfitState("its masks are missing")
    for name, mask in masks.items():
        if not str(mask.dtype).endswith("bool"):
            raise UnfitState(f"the mask of {name} is of {mask.dtype}")
    prunings = _prunings(kept.values.get("prunings"), sizes)
    try:
        if masks:
            pruner.replace({name: mask.to(device) for name, mask in masks.items()}, float(share))
        pruner.prunings = prunings
        if pruner.watching.state():
            pruner.watching.restore(kept.more("watched."))
    except (PrunebenchError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UnfitState(reason(error)) from error


def _prunings(found: Any, sizes: Mapping[str, int]) -> list[dict[str, int]]:
    if not isinstance(found, list):
        raise UnfitState("its record of prunings is no list")
    for one in found:
        right = isinstance(one, dict) and one.keys() == sizes.keys()
        if not right or any(type(count) is not int or not 0 <= count <= sizes[n] for n, count in one.items()):
            raise UnfitState("its record of prunings is none of this network's")
    return found


def restore_generator(generator: torch.Generator, kept: Unfinished) -> None:
    """A source of random numbers beside the loop's own."""
    try:
        generator.set_state((kept.tensors or {})["generator"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UnfitState(f"its generator can't be gone on with ({reason(error)})") from error


def counts(kept: Unfinished, known: Iterable[str]) -> dict[str, int]:
    """Whole numbers by the names that this training keeps."""
    assert kept.values is not None
    found = kept.values.get("around")
    if not isinstance(found, dict) or found.keys() != set(known):
        raise UnfitState("its counts are not those that this training keeps")
    for name, value in found.items():
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise UnfitState(f"its {name} is {value!r}")
    return found


def words(kept: Unfinished, name: str) -> set[str]:
    """Warnings met so far; older states may lack them."""
    assert kept.values is not None
    found = kept.values.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise UnfitState(f"its {name} are no texts")
    return set(found)
