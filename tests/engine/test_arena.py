"""Blocks in an arena: those that live at once never overlap."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.engine.arena import place

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12), st.integers(0, 6)), max_size=20)


@settings(max_examples=300, deadline=None)
@given(SPANS)
def test_place(spans):
    blocks = [(SimpleNamespace(off=None), size, first, first + more) for size, first, more in spans]
    whole = place(blocks)
    for i, (a, size, first, last) in enumerate(blocks):
        assert 0 <= a.off <= a.off + size <= whole
        for b, other, start, end in blocks[:i]:
            if first <= end and start <= last:
                assert a.off + size <= b.off or b.off + other <= a.off
    at_once = [sum(s for _, s, a, b in blocks if a <= t <= b) for t in range(20)]
    assert max(at_once) <= whole <= sum(s for _, s, _, _ in blocks)


def test_memory_is_used_again():
    a, b, c = (SimpleNamespace(off=None) for _ in range(3))
    assert place([(a, 8, 0, 1), (b, 8, 1, 2), (c, 8, 2, 3)]) == 16
    assert a.off == c.off != b.off


def test_nothing():
    assert place([]) == 0
