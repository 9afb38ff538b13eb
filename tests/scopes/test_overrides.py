"""Layers with a sparsity of their own: by pattern in Python, the model's ends in a scope's string, for every scope."""

import math

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import models, registry
from prunebench.errors import UsageError
from prunebench.masks import LayerCollapseWarning
from prunebench.scopes import own_sparsities

SCOPES = registry.names("scopes")


def net():
    torch.manual_seed(0)
    return models.build("lenet5", (1, 28, 28), 10)  # 500, 25,000, 400,000 and 5,000 weights


def pruned(masks):
    return {name.removesuffix(".weight"): int((~mask).sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("scope", SCOPES)
def test_overridden_layers_get_theirs_and_the_rest_the_scope(scope):
    found = pruned(pb.prune(net(), 0.9, scope=scope, overrides={"conv1": 0.0, "fc*": 0.51}))
    assert found == {"conv1": 0, "conv2": 22500, "fc1": 204000, "fc2": 2550}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_rest_is_pruned_as_if_the_others_were_not_there(scope):
    masks = pb.prune(net(), 0.9, scope=scope, overrides={"conv1": 0.2})
    without = pb.prune(net(), 0.9, scope=scope, exclude=["conv1"])
    assert pruned(masks)["conv1"] == 100
    assert all(torch.equal(masks[name], mask) for name, mask in without.items())


@pytest.mark.parametrize("scope", SCOPES)
def test_the_ends_stay_dense_on_request(scope):
    found = pruned(pb.prune(net(), 0.9, scope=f"{scope}:first=dense:last=dense"))
    assert found["conv1"] == found["fc2"] == 0
    rest = [found["conv2"], found["fc1"]]
    assert sum(rest) == math.floor(425000 * 0.9 + 0.5)
    assert all(rest)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_ends_can_have_a_sparsity(scope):
    found = pruned(pb.prune(net(), 0.9, scope=f"{scope}:first=0.25:last=0"))
    assert (found["conv1"], found["fc2"]) == (125, 0)


def test_parameters_of_the_scope_go_with_them():
    text = registry.check("scopes", "lamp:power=1:last=dense")
    assert text == "lamp:last=dense:power=1"
    plain, both = pb.prune(net(), 0.9, scope="lamp:power=1", exclude=["fc2"]), pb.prune(net(), 0.9, scope=text)
    assert both.pop("fc2.weight").all()
    assert all(torch.equal(plain[n], both[n]) for n in both)


def test_the_first_pattern_that_fits_decides_and_before_the_ends():
    names = {"a.weight": ("a.weight", "a"), "b.fc.weight": ("b.fc.weight", "b.fc"), "c.weight": ("c.weight", "c", "d")}
    assert own_sparsities("global:first=dense", names, {"*.fc": 0.5, "b*": 0.7, "d": 0.3}) == {
        "a.weight": 0.0,
        "b.fc.weight": 0.5,
        "c.weight": 0.3,
    }
    assert own_sparsities("global:first=dense", names, {"a": 0.5}) == {"a.weight": 0.5}


def test_a_schedule_leads_every_layer_to_its_own():
    model = net()
    pruner = pb.Pruner(model, 0.8, scope="layerwise", schedule="linear", steps=4, overrides={"fc1": 0.4, "fc2": 0.0})
    for k in range(1, 5):
        pruner.step()
        expected = [(500, 0.8), (25000, 0.8), (400000, 0.4), (5000, 0.0)]
        assert list(pruned(pruner.masks).values()) == [math.floor(n * s * k / 4 + 0.5) for n, s in expected]


def test_a_schedule_that_knows_the_target_knows_each_layer_s():
    model = net()
    pruner = pb.Pruner(model, 0.9, scope="layerwise", schedule="geometric", steps=2, overrides={"fc1": 0.36})
    pruner.step()
    assert pruned(pruner.masks)["fc1"] == 400000 - math.floor(400000 * 0.64**0.5 + 0.5)
    assert pruned(pruner.masks)["conv2"] == 25000 - math.floor(25000 * 0.1**0.5 + 0.5)


def test_rounds_lead_every_layer_to_its_own(registry_sandbox):
    seen = []

    @pb.criterion("steady", rounds=2)
    def steady(layer):
        seen.append(int(layer.weight.count_nonzero()))
        return layer.weight.abs()

    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    masks = pb.prune(model, 0.19, "steady", overrides={"0": 0.36})
    assert seen == [100, 100, 80, 90]
    assert [int(m.sum()) for m in masks.values()] == [64, 81]


def test_an_overridden_layer_keeps_a_weight_too():
    with pytest.warns(LayerCollapseWarning, match=r"0\.weight"):
        masks = pb.prune(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 0.5, overrides={"0": 0.99})
    assert int(masks["0.weight"].sum()) == 1


def test_of_tied_layers_the_lowest_counts():
    model = models.build("resnet20", (3, 32, 32), 10)
    masks = pb.prune(model, 0.5, granularity="filter", scope="layerwise:first=dense")
    assert masks["stem.weight"].all()
    assert masks["stages.0.2.conv2.weight"].all()  # added to the stem's output
    assert int(masks["stages.0.0.conv1.weight"].flatten(1).any(1).sum()) == 8
    own = {"stem": 0.75, "stages.0.2.conv2": 0.25}
    masks = pb.prune(model, 0.5, granularity="filter", scope="layerwise", overrides=own)
    assert [int(masks[f"{n}.weight"].flatten(1).any(1).sum()) for n in own] == [12, 12]


def test_an_excluded_layer_needs_no_sparsity():
    assert set(pb.prune(net(), 0.5, scope="global:first=0.3", exclude=["conv1"])) == {
        "conv2.weight",
        "fc1.weight",
        "fc2.weight",
    }


def test_all_layers_overridden():
    found = pruned(pb.prune(net(), 0.9, overrides={"conv*": 0.1, "*": 0.2}))
    assert found == {"conv1": 50, "conv2": 2500, "fc1": 80000, "fc2": 1000}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"overrides": {"*.head": 0.5}}, ["'*.head'", "conv1.weight"]),
        ({"overrides": {"fc1": 1.0}}, ["1.0", "[0, 1)"]),
        ({"overrides": {"fc1": "dense"}}, ["'dense'", "not a number"]),
        ({"scope": "global:first=sparse"}, ["first=sparse", "first=dense"]),
        ({"scope": "global:last=1"}, ["last=1", "[0, 1)"]),
        ({"scope": "erk:last=true"}, ["last=true", "last=dense"]),
        ({"scope": "erk:middle=dense"}, ["'middle'", "known: first, last"]),
        ({"scope": "lamp:power=-2"}, ["power=-2", "above 0"]),
        ({"overrides": {"fc2": 0.5}, "granularity": "filter"}, ["fc2.weight", "granularity"]),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(arguments, words):
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError) as error:
        pb.prune(model, 0.9, **arguments)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_scope_s_string_is_checked_without_torch():
    import subprocess
    import sys

    code = (
        "import sys; from prunebench import registry as r; "
        "[r.check('scopes', f'{n}:first=dense') for n in ('global', 'layerwise', 'erk', 'lamp')]; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False"]
