"""Blocks by hand and by brute force: whole blocks go, edges are smaller, scores are the criterion's own reduction."""

import itertools

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria, registry
from prunebench.errors import UsageError
from prunebench.granularities import Scored, unit_sets


def unit_set(layer, text, criterion="l1", keep=None):
    scores = {"weight": layer.weight.detach().abs()}
    scored = Scored(
        layer, {"weight": layer}, scores, None if keep is None else {"weight": keep}, criteria.reducer(criterion)
    )
    (found,) = unit_sets(text, scored)
    return found


def blocks(layer, rows, cols):
    """Index arrays of every block, in the order out, in, tap: by a loop over the definition."""
    weight = layer.weight
    swap = getattr(layer, "transposed", False)
    out, inputs = (weight.shape[1], weight.shape[0]) if swap else weight.shape[:2]
    taps = list(itertools.product(*map(range, weight.shape[2:])))
    for o, i, tap in itertools.product(range(0, out, rows), range(0, inputs, cols), taps):
        pairs = itertools.product(range(o, min(o + rows, out)), range(i, min(i + cols, inputs)))
        yield [((b, a) if swap else (a, b)) + tap for a, b in pairs]


LAYERS = [
    lambda: nn.Linear(12, 8),
    lambda: nn.Linear(11, 10),
    lambda: nn.Conv2d(6, 9, 3),
    lambda: nn.Conv2d(8, 8, 3, groups=8),
    lambda: nn.Conv1d(5, 7, 2),
    lambda: nn.ConvTranspose2d(5, 6, 2),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("rows", "cols"), [(4, 1), (1, 4), (16, 1), (2, 3), (1, 1)])
def test_units_costs_masks_and_scores_by_brute_force(layer, rows, cols):
    layer = layer()
    found = unit_set(layer, f"block:rows={rows}:cols={cols}")
    expected = list(blocks(layer, rows, cols))
    assert found.units == len(expected)
    assert found.costs.tolist() == [len(b) for b in expected]
    assert found.weights == layer.weight.numel()
    means = [torch.stack([layer.weight[index].abs() for index in b]).mean().item() for b in expected]
    assert found.scores.tolist() == pytest.approx([mean * rows * cols for mean in means], rel=1e-5)
    for k in {0, len(expected) // 2, len(expected) - 1}:
        keep = torch.ones(found.units, dtype=torch.bool)
        keep[k] = False
        mask = found.expand(keep)["weight"]
        assert mask.shape == layer.weight.shape
        assert sorted(map(tuple, (~mask).nonzero().tolist())) == sorted(expected[k])


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "lp:p=3"])
def test_a_block_s_score_is_the_criterion_s_reduction(criterion):
    layer = nn.Linear(3, 4)
    layer.weight.data = torch.tensor([[1.0, -2.0, 2.0], [2.0, 2.0, 0.0], [-2.0, 1.0, 0.0], [4.0, 0.0, 3.0]])
    found = unit_set(layer, "block", criterion)
    columns = layer.weight.detach().t()
    p = {"l1": 1, "l2": 2, "linf": float("inf"), "lp:p=3": 3}[criterion]
    assert found.scores.tolist() == pytest.approx([float(torch.linalg.vector_norm(c, p)) for c in columns])


def test_a_small_block_at_the_edge_competes_by_its_mean():
    layer = nn.Linear(1, 6)
    layer.weight.data = torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.5], [1.5]])
    found = unit_set(layer, "block")
    assert found.scores.tolist() == [4.0, 6.0]
    assert found.costs.tolist() == [4, 2]
    assert pb.prune(layer, 0.5, granularity="block")["weight"].flatten().tolist() == [False] * 4 + [True] * 2


def test_a_block_with_one_weight_left_is_still_there():
    layer = nn.Linear(2, 4)
    keep = torch.zeros(4, 2).bool()
    keep[2, 1] = True
    assert torch.isneginf(unit_set(layer, "block", keep=keep).scores).tolist() == [True, False]


@pytest.mark.filterwarnings("ignore::prunebench.masks.LayerCollapseWarning")
@pytest.mark.parametrize("scope", registry.names("scopes"))
@pytest.mark.parametrize("text", ["block", "block:rows=1:cols=4", "block:rows=16"])
def test_blocks_stay_whole_and_the_total_comes_near(scope, text):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 18, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18 * 4, 30), nn.Linear(30, 6))
    rows, cols = {"block": (4, 1), "block:rows=1:cols=4": (1, 4), "block:rows=16": (16, 1)}[text]
    masks = pb.prune(model, 0.6, granularity=text, scope=scope)
    for name, mask in masks.items():
        for b in blocks(model.get_submodule(name.removesuffix(".weight")), rows, cols):
            assert len({bool(mask[index]) for index in b}) == 1
    total = sum(m.numel() for m in masks.values())
    largest = rows * cols * (3 if scope == "layerwise" else 1)
    assert abs(sum(int((~m).sum()) for m in masks.values()) - 0.6 * total) <= largest / 2 + 0.5


@pytest.mark.parametrize(
    "text", ["block:rows=0", "block:cols=-1", "block:rows=2.5", "block:rows=tall", "block:rows=64:cols=64"]
)
def test_a_size_that_can_not_be_is_refused_when_the_string_is_read(text):
    with pytest.raises(UsageError) as error:
        registry.check("granularities", text)
    assert "\n" not in str(error.value)
    assert text.partition(":")[2].split("=")[1].split(":")[0] in str(error.value)
