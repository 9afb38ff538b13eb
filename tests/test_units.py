"""Units: the best of a set is out of reach, earlier masks stay, a set never loses all."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebench.masks import lowest
from prunebench.sharing import together
from prunebench.units import UnitSet, forced, protected, select, shares


def unit_set(name, scores, cost=1):
    return UnitSet((name,), torch.tensor(scores), cost, lambda keep: {name: keep})


def test_sizes():
    one = unit_set("a", [1.0, 2.0, 3.0], cost=4)
    assert (one.units, one.weights) == (3, 12)


def test_the_last_of_the_best_is_protected():
    scores = torch.tensor([3.0, 1.0, 3.0, 2.0])
    assert protected(scores).tolist() == [3.0, 1.0, float("inf"), 2.0]
    assert scores.tolist() == [3.0, 1.0, 3.0, 2.0]


def test_each_set_loses_its_lowest():
    masks = select([unit_set("a", [3.0, 1.0, 2.0]), unit_set("b", [0.0, 0.0])], [2, 1])
    assert masks["a"].tolist() == [True, False, False]
    assert masks["b"].tolist() == [False, True]


def test_a_set_keeps_one_unit_whatever_the_count():
    assert select([unit_set("a", [3.0, 1.0, 2.0])], [3])["a"].tolist() == [True, False, False]


def test_what_was_pruned_ranks_below_everything():
    scores = torch.tensor([5.0, -7.0, 1.0], dtype=torch.float64)
    ranked = forced(scores, torch.tensor([False, True, True]))
    assert ranked.tolist() == [-float("inf"), -7.0, 1.0]
    assert ranked.dtype == torch.float64, "in float32 different scores might be equal"
    assert forced(scores.half(), None).dtype == torch.float32
    assert forced(scores, None).tolist() == [5.0, -7.0, 1.0]


def brute_shares(count, width, gone):
    """One unit at a time to the row that has lost least, the first of equals."""
    counts = list(gone)
    while sum(counts) < count:
        open_ = [i for i in range(len(counts)) if counts[i] < width]
        counts[min(open_, key=lambda i: (counts[i], i))] += 1
    return counts


@given(
    width=st.integers(1, 9),
    gone=st.lists(st.integers(0, 9), min_size=1, max_size=7),
    share=st.floats(0, 1),
)
def test_rows_lose_alike_and_never_less_than_before(width, gone, share):
    gone = [min(g, width) for g in gone]
    count = sum(gone) + int(share * (width * len(gone) - sum(gone)))
    found = shares(count, width, torch.tensor(gone)).tolist()
    assert found == brute_shares(count, width, gone)


def test_the_remainder_goes_to_the_first_rows():
    assert shares(7, 4, torch.zeros(3, dtype=torch.int64)).tolist() == [3, 2, 2]


def test_every_row_loses_its_lowest_with_ties_by_position():
    rows = torch.tensor([[3.0, 1.0, 2.0, 1.0], [9.0, 9.0, 9.0, 9.0], [0.5, 0.1, 0.2, 0.3]])
    one = UnitSet(("a",), rows.flatten(), 1, lambda keep: {"a": keep.view(3, 4)}, rows=3)
    assert select([one], [7])["a"].tolist() == [
        [True, False, False, False],
        [False, False, True, True],
        [True, False, False, True],
    ]
    assert int(select([one], [12])["a"].sum()) == 1


@pytest.mark.parametrize("cost", [1, torch.tensor([1, 2, 3] * 20)])
def test_what_a_common_ranking_has_found_is_what_each_set_s_own_would(cost):
    generator = torch.Generator().manual_seed(0)
    # Few values, so that ties lie across sets and within them; some units are gone already.
    scores = [torch.randint(0, 4, (60,), generator=generator).float() for _ in range(3)]
    scores[1][:20] = float("-inf")
    sets = [UnitSet((f"l{i}",), s, cost, lambda keep, i=i: {f"l{i}": keep}) for i, s in enumerate(scores)]
    counts = together(sets, 0.6)
    assert [list(s.found) for s in sets] == [[c] for c in counts]
    for unit_set, count in zip(sets, counts, strict=True):
        assert torch.equal(unit_set.found[count], lowest(unit_set.scores, count))
        assert not replace(unit_set, scores=unit_set.scores + 1).found, "other scores, another order"
    assert {n: int((~m).sum()) for n, m in select(sets, counts).items()} == {f"l{i}": c for i, c in enumerate(counts)}
