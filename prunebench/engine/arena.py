"""Offsets in one arena for blocks that live for a while each: the largest first, as low as it goes."""

from __future__ import annotations

from typing import Any


def place(blocks: list[tuple[Any, int, int, int]]) -> int:
    """Sets `off` of every (owner, size, first, last) so that none that live at once overlap; returns the whole size."""
    done: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for owner, size, first, last in sorted(blocks, key=lambda b: -b[1]):
        at = 0
        for off, end, a, b in sorted(done):
            if a <= last and first <= b and off < at + size and at < end:
                at = end
        owner.off = at
        done.append((at, at + size, first, last))
    return max((end for _, end, _, _ in done), default=0)
