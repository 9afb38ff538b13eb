"""Offsets in one arena for blocks that live for a while each: one by one, as low as they go, in the best order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Block = tuple[Any, int, int, int]  # owner, size, first and last step it is needed at

# Which blocks go first decides how much is wasted; none of these orders is best for every network
_ORDERS: tuple[Callable[[Block], Any], ...] = (
    lambda b: -b[1],
    lambda b: (b[2], -b[1]),
    lambda b: -b[1] * (b[3] - b[2] + 1),
    lambda b: (-(b[3] - b[2]), -b[1]),
    lambda b: (b[3], -b[1]),
)


def place(blocks: list[Block]) -> int:
    """Sets `off` of every owner so that no blocks that live at once overlap; returns the whole size."""
    tries = [_placed(sorted(blocks, key=order)) for order in _ORDERS]
    size, found = min(tries, key=lambda t: t[0])
    for owner, off in found:
        owner.off = off
    return size


def _placed(blocks: list[Block]) -> tuple[int, list[tuple[Any, int]]]:
    done: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    found = []
    for owner, size, first, last in blocks:
        at = 0
        for off, end, a, b in sorted(done):
            if a <= last and first <= b and off < at + size and at < end:
                at = end
        found.append((owner, at))
        done.append((at, at + size, first, last))
    return max((end for _, end, _, _ in done), default=0), found
