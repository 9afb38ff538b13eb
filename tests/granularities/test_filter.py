"""Filters: groups tied by residual adds, depthwise and concatenation; whole filters only; the classifier stays."""

import pytest
import torch
from branching import Branching
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.errors import UsageError
from prunebench.granularities.ties import tied_filters
from prunebench.masks import prunable_modules


def groups(model, exclude=()):
    return {frozenset(g) for g in tied_filters(model, prunable_modules(model, exclude))}


def test_resnet20_s_ties():
    found = groups(models.build("resnet20", (3, 32, 32), 10))
    stage = "stages.{}.{}.conv{}.weight".format
    expected = {frozenset([stage(s, b, 1)]) for s in range(3) for b in range(3)}
    expected.add(frozenset(["stem.weight", *(stage(0, b, 2) for b in range(3))]))
    for s in (1, 2):
        expected.add(frozenset([f"stages.{s}.0.shortcut.0.weight", *(stage(s, b, 2) for b in range(3))]))
    assert found == expected


@pytest.mark.filterwarnings("ignore::prunebench.masks.LayerCollapseWarning")
@pytest.mark.parametrize("sparsity", [0.3, 0.7])
@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_tied_layers_lose_the_same_whole_filters(sparsity, scope):
    model = models.build("resnet20", (3, 32, 32), 10)
    masks = pb.prune(model, sparsity, granularity="filter", scope=scope)
    rows = {}
    for name, mask in masks.items():
        flat = mask.flatten(1)
        rows[name] = flat[:, 0]
        assert torch.equal(flat, flat[:, :1].expand_as(flat))
        assert flat.any()
    for group in groups(model):
        first, *others = (rows[name] for name in sorted(group))
        assert all(torch.equal(first, other) for other in others)
    assert masks["fc.weight"].all()
    assert not all(row.all() for row in rows.values())


@pytest.mark.parametrize(
    ("rows", "goes"),
    [([0.5, 2.0], 0), ([1.0, 1.75], 1)],  # 3 + 1 against 1 + 4, and 3 + 2 against 1 + 3.5
)
def test_a_tied_group_s_score_is_the_sum_of_its_layers(rows, goes):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x):
            y = self.a(x)
            return self.head(y + self.b(y))

    model = Residual()
    model.a.weight.data = torch.tensor([3.0, 1.0]).view(2, 1, 1, 1)
    model.b.weight.data = torch.tensor(rows).view(2, 1, 1, 1).expand(2, 2, 1, 1).clone()
    masks = pb.prune(model, 0.5, granularity="filter")
    kept = [i != goes for i in range(2)]
    assert masks["a.weight"].flatten().tolist() == kept
    assert masks["b.weight"].flatten(1).tolist() == [[k, k] for k in kept]
    assert masks["head.weight"].all()


def test_layerwise_counts_of_filters_are_exact():
    model = models.build("lenet5", (1, 28, 28), 10)
    masks = pb.prune(model, 0.9, granularity="filter", scope="layerwise")
    assert [int(m.flatten(1).any(1).sum()) for m in masks.values()] == [2, 5, 50, 10]


def test_global_comes_nearest_to_the_total_by_brute_force(registry_sandbox):
    # By the mean, because a sum would take all of a convolution's small filters first.
    pb.criterion("average", reduce="mean")(lambda layer: layer.weight.abs())
    model = models.build("lenet5", (1, 28, 28), 10)
    weights = {k: m.weight.detach().clone() for k, m in prunable_modules(model).items()}
    pool = sorted(
        (mean.item(), w[0].numel())
        for k, w in weights.items()
        if k != "fc2.weight"
        for mean in w.abs().flatten(1).mean(-1)
    )
    total = sum(n for _, n in pool)
    removed, best = 0, (total, 0)
    for _, n in pool:
        removed += n
        best = min(best, (abs(removed - total * 0.6), removed))
    masks = pb.prune(model, 0.6, "average", granularity="filter")
    assert sum(int((~m).sum()) for m in masks.values()) == best[1]


def test_a_model_that_multiplies_is_tied_too():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.a(x) * torch.sigmoid(self.b(x)))

    assert groups(Gate()) == {frozenset(["a.weight", "b.weight"])}


def test_depthwise_filters_follow_their_input():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    assert groups(model) == {frozenset(["0.weight", "1.weight"])}


def test_what_is_added_to_the_input_can_not_go():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.head(x + self.b(self.a(x)))

    assert groups(Skip()) == {frozenset(["a.weight"])}


def test_concatenated_channels_stay_apart():
    class Cat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(9, 2, 1)

        def forward(self, x):
            return self.head(torch.cat([self.a(x), self.b(x)], 1))

    assert groups(Cat()) == {frozenset(["a.weight"]), frozenset(["b.weight"])}


def test_an_excluded_layer_holds_those_tied_to_it():
    model = models.build("resnet20", (3, 32, 32), 10)
    found = groups(model, ["stem"])
    assert not any("stages.0.0.conv2.weight" in g for g in found)
    assert frozenset(["stages.0.0.conv1.weight"]) in found


def test_a_transposed_convolution_s_filters_are_its_second_axis():
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 1), nn.Conv2d(3, 2, 1))
    model[0].weight.data = torch.tensor([[5.0, 1.0, 3.0], [5.0, 1.0, 3.0]]).view(2, 3, 1, 1)
    masks = pb.prune(model, 1 / 3, granularity="filter")
    assert masks["0.weight"].view(2, 3).tolist() == [[True, False, True]] * 2


def test_what_can_not_be_traced_is_taken_as_a_chain():
    assert groups(Branching()) == {frozenset(["a.weight"])}


@pytest.mark.parametrize("model", [nn.Linear(4, 2), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 2))])
def test_nothing_to_remove_is_one_line(model):
    with pytest.raises(UsageError, match="no filter that could be removed") as error:
        pb.prune(model, 0.5, granularity="filter")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_a_criterion_s_own_reduction_decides(reduce, registry_sandbox):
    pb.criterion("own", reduce=reduce)(lambda layer: layer.weight.abs())
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    # Sums 6 and 7, maxima 6 and 3.
    model[0].weight.data = torch.tensor([[6.0, 0.0, 0.0], [3.0, 3.0, 1.0]])
    masks = pb.prune(model, 0.5, "own", granularity="filter")
    assert masks["0.weight"].any(1).tolist() == ([False, True] if reduce != "max" else [True, False])
