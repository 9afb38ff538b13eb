"""Counts given from outside: exact per layer, at every pruning, whatever the criterion; and what doesn't fit."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.errors import UsageError
from prunebench.masks import LayerCollapseWarning
from prunebench.proportions import removed


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 20), nn.ReLU(), nn.Linear(20, 5)
    )


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 2, 6, 6, generator=generator), torch.randint(0, 5, (8,), generator=generator))]


@pytest.fixture(autouse=True)
def quiet(recwarn):
    yield
    assert not [w for w in recwarn if not issubclass(w.category, LayerCollapseWarning)]


@pytest.mark.parametrize("criterion", ["random", "l1"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77, 0.95])
def test_masks_give_their_counts_to_another_criterion(criterion, sparsity):
    first = pb.prune(net(), sparsity, "l2")
    second = pb.prune(net(1), proportions=first, criterion=criterion)
    assert removed(second) == removed(first)
    if sparsity > 0 and criterion == "random":
        assert any(not torch.equal(first[n], second[n]) for n in first)


def test_counts_do_as_well_as_masks():
    counts = {"0.weight": 10, "3.weight": 0, "5.weight": 99}
    assert removed(pb.prune(net(), proportions=counts)) == counts
    kept = pb.prune(net(), proportions=counts)["0.weight"]
    weight = net()[0].weight.detach().abs()
    assert weight[~kept].max() <= weight[kept].min(), "the criterion still chooses which"


def test_a_schedule_goes_to_the_final_counts_layer_by_layer():
    counts = {"0.weight": 10, "3.weight": 1000, "5.weight": 50}
    pruner = pb.Pruner(net(), schedule="linear", steps=4, proportions=counts)
    for _ in range(4):
        pruner.step()
    quarters = [{n: int(c * k / 4 + 0.5) for n, c in counts.items()} for k in range(1, 5)]
    assert pruner.prunings == quarters


@pytest.mark.parametrize("schedule", ["one_shot", "agp"])
@pytest.mark.parametrize("granularity", ["weight", "filter", "block:rows=4:cols=1"])
def test_a_record_of_prunings_is_repeated_at_each(schedule, granularity):
    def trained(pruner):
        for _ in range(5):
            with torch.no_grad():  # the weights move in between, so that each pruning shares out anew
                for p in pruner.model.parameters():
                    p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
            pruner.step()
        return pruner

    options = {"schedule": schedule, "steps": 5, "granularity": granularity}
    first = trained(pb.Pruner(models.build("resnet20", (3, 8, 8), 4), 0.6, "l1", **options))
    model = models.build("resnet20", (3, 8, 8), 4, seed=1)
    second = trained(pb.Pruner(model, criterion="random", proportions=first.prunings, **options))
    assert len(first.prunings) == (1 if schedule == "one_shot" else 5)
    assert first.prunings[-1] == removed(first.masks)
    if granularity != "block:rows=4:cols=1":  # whole blocks at the edges are smaller
        assert second.prunings == first.prunings
    else:
        assert all(abs(second.prunings[-1][n] - c) < 4 for n, c in first.prunings[-1].items())


def test_like_copies_what_the_other_pair_would_do_to_the_same_model(registry_sandbox):
    @pb.criterion("late", needs=("gradients",))
    def late(layer):
        return layer.weight.abs() * (1 if layer.name.startswith("0") else 10) + layer.grad.abs()

    expected = removed(pb.prune(net(), 0.8, "late", data=batches()))
    for criterion in ("random", "l1"):
        found = pb.prune(net(), 0.8, criterion, "like:criterion=late:scope=global", data=batches())
        assert removed(found) == expected
    assert expected != removed(pb.prune(net(), 0.8))
    with pytest.raises(UsageError, match="'late' needs data"):
        pb.prune(net(), 0.8, "random", "like:criterion=late")


def test_like_knows_the_original_s_dense_layers():
    scope = "like:criterion=l2:scope=global/last=dense"
    counts = removed(pb.prune(net(), 0.8, "random", scope))
    assert counts == removed(pb.prune(net(), 0.8, "l2", "global:last=dense"))
    assert counts["5.weight"] == 0


def test_like_along_a_schedule_only_shrinks_and_ends_on_the_total():
    pruner = pb.Pruner(net(), 0.8, "random", "like:criterion=l1:scope=global", steps=5)
    before = {}
    for _ in range(5):
        pruner.step()
        assert not any((pruner.masks[n] & ~before[n]).any() for n in before)
        before = pruner.masks
    total = sum(m.numel() for m in before.values())
    assert sum(removed(before).values()) == int(total * 0.8 + 0.5)


def test_the_given_proportions_come_before_the_scope_s():
    counts = {"0.weight": 1, "3.weight": 2, "5.weight": 3}
    assert removed(pb.prune(net(), proportions=counts, scope="layerwise")) == counts


GOOD = {"0.weight": 1, "3.weight": 2, "5.weight": 3}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "neither a sparsity nor proportions"),
        ({"sparsity": 0.5, "proportions": GOOD}, "leave sparsity"),
        ({"overrides": {"0": 0.5}, "proportions": GOOD}, "overrides out"),
        ({"proportions": {"0.weight": 1, "3.weight": 2}}, r"lack 5\.weight"),
        ({"proportions": {**GOOD, "7.weight": 1}}, r"'7\.weight'"),
        ({"proportions": {**GOOD, "5.weight": 100}}, "100 of its 100"),
        ({"proportions": {**GOOD, "5.weight": -1}}, "-1 of its 100"),
        ({"proportions": {**GOOD, "5.weight": 0.5}}, "0.5 of its 100"),
        ({"proportions": {**GOOD, "5.weight": torch.ones(3, 3, dtype=torch.bool)}}, r"shape \(3, 3\)"),
        ({"proportions": {**GOOD, "5.weight": torch.ones(5, 20)}}, "float32 mask"),
        ({"proportions": []}, "empty"),
        ({"proportions": GOOD, "granularity": "filter"}, r"5\.weight can't be pruned at this granularity"),
    ],
)
def test_what_doesn_t_fit_is_refused_in_a_line_and_the_model_untouched(options, named):
    model, before = net(), net()
    with pytest.raises(UsageError, match=named) as error:
        pb.prune(model, **options)
    assert "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
