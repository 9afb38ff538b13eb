"""pb.prune and pb.Pruner: equal to torch's own pruning, exact counts, schedules in a real loop, and what is refused."""

import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunebench as pb
from prunebench import models
from prunebench.errors import PluginError, UsageError
from prunebench.masks import LayerCollapseWarning, prunable_modules

NETS = [("lenet5", (1, 28, 28)), ("resnet20", (3, 32, 32)), ("squeezenet1_1", (3, 64, 64))]


def distinct(model, seed=0):
    """Every prunable weight gets another magnitude, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    modules = prunable_modules(model)
    total = sum(m.weight.numel() for m in modules.values())
    assert total < 2**24
    values = torch.randperm(total, generator=generator).float() + 1
    values *= torch.randint(0, 2, (total,), generator=generator) * 2 - 1
    for module, part in zip(modules.values(), values.split([m.weight.numel() for m in modules.values()]), strict=True):
        module.weight.data = part.view_as(module.weight) / 2**10
    return model


def torch_masks(model):
    return {f"{name}.weight": m.weight_mask.bool() for name, m in model.named_modules() if hasattr(m, "weight_mask")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def zeros(model):
    return sum(int((m.weight == 0).sum()) for m in prunable_modules(model).values())


@pytest.mark.parametrize(("name", "shape"), NETS)
@pytest.mark.parametrize("sparsity", [0.5, 0.9123])
def test_global_masks_are_those_of_torch(name, shape, sparsity):
    ours, theirs = (distinct(models.build(name, shape, 10)) for _ in range(2))
    layers = [(m, "weight") for m in prunable_modules(theirs).values()]
    total = sum(m.weight.numel() for m, _ in layers)
    count = math.floor(total * sparsity + 0.5)
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=count)
    masks = pb.prune(ours, sparsity)
    assert same(masks, torch_masks(theirs))
    assert sum(int((~m).sum()) for m in masks.values()) == count == zeros(ours)


@pytest.mark.parametrize(("name", "shape"), NETS)
def test_layerwise_masks_are_those_of_torch(name, shape):
    ours, theirs = (distinct(models.build(name, shape, 10)) for _ in range(2))
    for module in prunable_modules(theirs).values():
        torch_prune.l1_unstructured(module, "weight", amount=math.floor(module.weight.numel() * 0.8 + 0.5))
    assert same(pb.prune(ours, 0.8, scope="layerwise"), torch_masks(theirs))


def test_pruned_weights_are_zero_and_kept_ones_are_as_before():
    model = models.build("lenet5", (1, 28, 28), 10)
    before = state(model)
    masks = pb.prune(model, 0.7)
    for name, value in model.state_dict().items():
        if name in masks:
            assert torch.equal(value, before[name] * masks[name])
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("criterion", ["l2", "linf", "lp", "lp:p=0.5"])
def test_for_single_weights_every_norm_ranks_alike(criterion):
    ours, others = (models.build("lenet5", (1, 28, 28), 10) for _ in range(2))
    assert same(pb.prune(ours, 0.9), pb.prune(others, 0.9, criterion=criterion))


def test_ties_go_by_position_over_layers():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3))
    for layer in (model[0], model[2]):
        layer.weight.data.fill_(0.5)
    with pytest.warns(LayerCollapseWarning):
        masks = pb.prune(model, 0.5)  # 6 of 12, all alike: the first layer would go whole, so its last stays
    assert masks["0.weight"].flatten().tolist() == [False] * 5 + [True]
    assert masks["2.weight"].flatten().tolist() == [False] + [True] * 5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.floats(0, 0.99),
    st.sampled_from(["global", "layerwise"]),
    st.integers(0, 3),
)
def test_counts_are_exact_on_any_chain(widths, sparsity, scope, levels):
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))
    generator = torch.Generator().manual_seed(sum(widths))
    for layer in model:  # few levels make many ties
        layer.weight.data = torch.randint(0, levels + 1, layer.weight.shape, generator=generator).float() + 1
    sizes = [layer.weight.numel() for layer in model]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        masks = pb.prune(model, sparsity, scope=scope)
    pruned = [int((~m).sum()) for m in masks.values()]
    if scope == "global":
        assert sum(pruned) == min(math.floor(sum(sizes) * sparsity + 0.5), sum(sizes) - len(sizes))
    else:
        assert pruned == [min(math.floor(n * sparsity + 0.5), n - 1) for n in sizes]
    assert all(m.any() for m in masks.values())


def lopsided():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 16))
    model[0].weight.data = torch.arange(1.0, 17).view(4, 4) / 1000
    model[2].weight.data = torch.arange(1.0, 65).view(16, 4)
    return model


def test_a_layer_about_to_vanish_keeps_its_best_and_the_total_stays():
    model = lopsided()
    with pytest.warns(LayerCollapseWarning, match=r"0\.weight") as caught:
        masks = pb.prune(model, 0.5)  # 40 of 80: all 16 small ones and 24 of the others, but for one
    assert "2.weight" not in str(caught[0].message)
    assert masks["0.weight"].flatten().tolist() == [False] * 15 + [True]
    assert masks["2.weight"].flatten().tolist() == [False] * 25 + [True] * 39


def test_at_the_very_end_every_layer_keeps_one():
    with pytest.warns(LayerCollapseWarning):
        masks = pb.prune(lopsided(), 0.9999)
    assert [int(m.sum()) for m in masks.values()] == [1, 1]


def test_no_collapse_no_warning(recwarn):
    pb.prune(lopsided(), 0.5, scope="layerwise")
    assert not [w for w in recwarn if issubclass(w.category, LayerCollapseWarning)]


def test_sparsity_zero_prunes_nothing():
    model = lopsided()
    before = state(model)
    masks = pb.prune(model, 0.0)
    assert all(m.all() for m in masks.values())
    assert same(state(model), before)


def test_excluded_layers_are_untouched_and_do_not_count():
    model = distinct(models.build("lenet5", (1, 28, 28), 10))
    before = state(model)
    masks = pb.prune(model, 0.9, exclude=["fc2", "conv*"])
    assert set(masks) == {"fc1.weight"}
    assert int((~masks["fc1.weight"]).sum()) == math.floor(400000 * 0.9 + 0.5)
    for name in ("fc2.weight", "conv1.weight", "conv2.weight"):
        assert torch.equal(model.state_dict()[name], before[name])


def test_shared_weights_are_pruned_once():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    masks = pb.prune(model, 0.5)
    assert list(masks) == ["0.weight"]
    assert int((model[2].weight == 0).sum()) == 32
    assert model[2].weight is model[0].weight


def nan_net():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight.data[0, 0] = float("nan")
    return model


def small():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (small, {"sparsity": 1.0}, ["1.0", "[0, 1)"]),
        (small, {"sparsity": -0.1}, ["-0.1", "[0, 1)"]),
        (small, {"sparsity": float("nan")}, ["nan", "[0, 1)"]),
        (small, {"sparsity": "much"}, ["'much'"]),
        (small, {"criterion": "l7"}, ["'l7'", "l1", "random"]),
        (small, {"criterion": "lp:q=3"}, ["'q'", "p"]),
        (small, {"criterion": "lp:p=0"}, ["p=0", "p > 0"]),
        (small, {"criterion": "lp:p=abc"}, ["abc", "give a number"]),
        (small, {"criterion": None}, ["None"]),
        (small, {"scope": "everywhere"}, ["'everywhere'", "global", "layerwise"]),
        (small, {"granularity": "atom"}, ["'atom'", "filter", "weight"]),
        (small, {"exclude": ["*.head"]}, ["'*.head'", "0.weight"]),
        (small, {"exclude": ["*"]}, ["nothing to prune"]),
        (nn.ReLU, {}, ["nothing to prune"]),
        (nan_net, {}, ["1.weight", "NaN"]),
        (lambda: nn.Linear(4, 2), {"granularity": "filter"}, ["no filter"]),
        (lambda: "resnet20", {}, ["torch.nn.Module", "str"]),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(make, arguments, words):
    model = make()
    before = state(model) if isinstance(model, nn.Module) else None
    with pytest.raises(UsageError) as error:
        pb.prune(model, **{"sparsity": 0.5, **arguments})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    if before:
        after = state(model)
        assert all(torch.equal(after[k].nan_to_num(7), before[k].nan_to_num(7)) for k in before)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"steps": 2.5}, {"every": 0}, {"steps": "10"}, {"schedule": "no"}])
def test_a_pruner_that_can_not_be(arguments):
    model = small()
    before = state(model)
    with pytest.raises(UsageError) as error:
        pb.Pruner(model, 0.5, **arguments)
    assert "\n" not in str(error.value)
    assert same(state(model), before)


def train(model, pruner, steps, optimizer=None):
    generator = torch.Generator().manual_seed(1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    for _ in range(steps):
        x = torch.randn(16, 50, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :5].argmax(1)).backward()
        optimizer.step()
        pruner.step()
        yield


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(50, 18), nn.ReLU(), nn.Linear(18, 5))  # 990 weights


SHARES = {"agp": lambda t: 1 - (1 - t) ** 3, "linear": lambda t: t, "one_shot": lambda t: 1.0}


@pytest.mark.parametrize("schedule", SHARES)
@pytest.mark.parametrize("final", [0.9, 0.33])
def test_the_schedule_holds_at_every_step_of_a_real_loop(schedule, final):
    model, n = classifier(), 23
    pruner = pb.Pruner(model, final, schedule=schedule, steps=n)
    assert zeros(model) == (math.floor(990 * final + 0.5) if schedule == "one_shot" else 0)
    found = [zeros(model) for _ in train(model, pruner, n)]
    assert found == [math.floor(990 * final * SHARES[schedule](k / n) + 0.5) for k in range(1, n + 1)]
    assert pruner.current_sparsity == pytest.approx(found[-1] / 990)


@pytest.mark.parametrize("schedule", SHARES)
@pytest.mark.parametrize(("steps", "every"), [(1, 1), (7, 1), (10, 3), (10, 5), (3, 100), (9, 2)])
def test_the_end_is_exactly_the_target(schedule, steps, every):
    model = classifier()
    pruner = pb.Pruner(model, 0.87, schedule=schedule, steps=steps, every=every)
    found = [zeros(model) for _ in train(model, pruner, steps + 3)]
    target = math.floor(990 * 0.87 + 0.5)
    assert found[steps - 1 :] == [target] * 4
    if schedule == "linear":
        asked = [k if k % every == 0 or k == steps else k - k % every for k in range(1, steps + 1)]
        assert found[:steps] == [math.floor(990 * 0.87 * k / steps + 0.5) for k in asked]


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_masks_only_shrink(criterion, scope):
    model = classifier()
    pruner = pb.Pruner(model, 0.9, criterion, scope, "linear", 12)
    before = None
    for _ in train(model, pruner, 12):
        if before is not None:
            assert not any((pruner.masks[name] & ~before[name]).any() for name in before)
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
    assert before is not None


def test_a_weight_that_collapse_spared_is_not_held_against_the_later_total():
    model = lopsided()
    pruner = pb.Pruner(model, 0.9, schedule="linear", steps=9)
    for k in range(1, 10):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)
            pruner.step()
        assert zeros(model) == math.floor(80 * 0.9 * (k / 9) + 0.5)


def test_the_rounds_of_a_criterion_follow_the_density(registry_sandbox):
    seen = []

    @pb.criterion("patient", rounds=4)
    def patient(layer):
        seen.append(int(layer.weight.count_nonzero()))
        return layer.weight.abs()

    model = nn.Linear(100, 10)
    masks = pb.prune(model, 0.9, "patient")
    assert seen == [1000 - math.floor(1000 * (1 - 0.1 ** (k / 4)) + 0.5) for k in range(4)]
    assert int(masks["weight"].sum()) == 100 == int(model.weight.count_nonzero())


def test_an_error_in_a_later_round_leaves_the_model_untouched(registry_sandbox):
    calls = []

    @pb.criterion("tired", rounds=5)
    def tired(layer):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("enough")
        return layer.weight.abs()

    model = nn.Linear(10, 10)
    before = model.weight.detach().clone()
    with pytest.raises(PluginError, match="enough"):
        pb.prune(model, 0.9, "tired")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    "share", [lambda t: 1.5, lambda t: -0.1, lambda t: float("nan"), lambda t: t / 2, lambda t: 1 / 0]
)
def test_a_schedule_that_cheats_is_named(share, registry_sandbox):
    pb.schedule("cheat")(share)
    model = small()
    with pytest.raises(PluginError, match="'cheat'"):
        pb.Pruner(model, 0.5, schedule="cheat", steps=1).step()
    assert zeros(model) == 0


@pytest.mark.parametrize(
    "counts",
    [
        lambda sets, s: [0],
        lambda sets, s: [-1, 0],
        lambda sets, s: [33, 0],
        lambda sets, s: None,
        lambda sets, s: 1 / 0,
    ],
)
def test_a_scope_that_cheats_is_named(counts, registry_sandbox):
    pb.scope("cheat")(counts)
    model = small()
    before = state(model)
    with pytest.raises(PluginError, match="'cheat'"):
        pb.prune(model, 0.5, scope="cheat")
    assert same(state(model), before)


def test_a_granularity_that_raises_is_named(registry_sandbox):
    @pb.granularity("cheat")
    def cheat(scored):
        raise RuntimeError("no idea")

    model = small()
    before = state(model)
    with pytest.raises(PluginError, match=r"'cheat'.*no idea"):
        pb.prune(model, 0.5, granularity="cheat")
    assert same(state(model), before)


def test_training_mode_and_gradients_are_left_alone():
    model = classifier().train()
    model(torch.randn(2, 50)).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    pb.prune(model, 0.5)
    assert model.training
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_types(dtype):
    model = nn.Linear(20, 10).to(dtype)
    masks = pb.prune(model, 0.75)
    assert int((~masks["weight"]).sum()) == 150 == zeros(model)
    assert model.weight.dtype == dtype
