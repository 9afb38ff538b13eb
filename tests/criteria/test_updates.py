"""A criterion's weight update: applied to kept weights once masks stand, refused where it cheats, and all or none."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.criteria import updates
from prunebench.errors import PluginError
from prunebench.masks import prunable_modules


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def register(update, name="mover"):
    @pb.criterion(name, update=update)
    def mover(layer, factor=2.0, update=True):
        return layer.weight.abs()

    return mover


def doubled(layer, keep, factor):
    return layer.weight * keep * factor


def test_kept_weights_move_and_pruned_ones_are_zero(registry_sandbox):
    register(doubled)
    model, plain = net(), net()
    masks = pb.prune(model, 0.5, "mover", "layerwise")
    assert all(
        torch.equal(mask, kept)
        for mask, kept in zip(masks.values(), pb.prune(plain, 0.5, "l1", "layerwise").values(), strict=True)
    )
    for name in masks:
        assert torch.equal(model.get_parameter(name), plain.get_parameter(name) * 2)
    assert torch.equal(model[0].bias, plain[0].bias)


def test_the_criterion_s_parameters_reach_the_update(registry_sandbox):
    register(doubled)
    model, plain = net(), net()
    pb.prune(model, 0.5, "mover:factor=3")
    pb.prune(plain, 0.5, "l1")
    assert torch.equal(model[0].weight, plain[0].weight * 3)


def test_it_can_be_switched_off(registry_sandbox):
    register(doubled)
    model, plain = net(), net()
    pb.prune(model, 0.5, "mover:update=false")
    pb.prune(plain, 0.5, "l1")
    assert torch.equal(model[0].weight, plain[0].weight)
    assert updates.moves("mover")
    assert not updates.moves("mover:update=false")
    assert not updates.moves("l1")


def test_a_layer_that_loses_nothing_is_left_alone(registry_sandbox):
    seen = []

    def update(layer, keep):
        seen.append(layer.name)
        return layer.weight * keep

    register(update)
    model = net()
    model[2].weight.data += 10
    pb.prune(model, 0.5, "mover")
    assert seen == ["0.weight"]


def test_along_a_schedule_masks_shrink_and_each_pruning_updates(registry_sandbox):
    register(doubled)
    model, first = net(), net()[0].weight.detach()
    pruner = pb.Pruner(model, 0.5, "mover", "layerwise", "linear", 2)
    pruner.step()
    once = pruner.masks["0.weight"].clone()
    assert torch.equal(model[0].weight, first * once * 2)
    pruner.step()
    twice = pruner.masks["0.weight"]
    assert not (twice & ~once).any()
    assert torch.equal(model[0].weight, first * twice * 4)
    pruner.step()
    assert torch.equal(model[0].weight, first * twice * 4)


def test_what_scoring_gathered_is_not_gathered_again(registry_sandbox):
    reads = []

    class Data:
        def __iter__(self):
            reads.append(1)
            return iter([(torch.ones(2, 4), torch.tensor([0, 1]))])

    @pb.criterion("by_gradient", needs=("gradients",), update=lambda layer, keep: (layer.weight - layer.grad) * keep)
    def by_gradient(layer):
        return layer.weight.abs()

    model = net()
    gradient = torch.autograd.grad(
        nn.functional.cross_entropy(model(torch.ones(2, 4)), torch.tensor([0, 1])), model[0].weight
    )[0]
    before = model[0].weight.detach().clone()
    masks = pb.prune(model, 0.5, "by_gradient", data=Data())
    assert len(reads) == 1
    torch.testing.assert_close(model[0].weight.detach(), (before - gradient) * masks["0.weight"])


def in_place(layer, keep):
    layer.weight.mul_(keep)
    return layer.weight


def in_place_then_raises(layer, keep):
    layer.weight.zero_()
    raise ValueError("after the fact")


def raises(layer, keep):
    raise KeyError("oops")


CHEATS = [
    (lambda layer, keep: layer.weight, "other than zero"),
    (lambda layer, keep: (layer.weight * keep)[:, :1], "shape"),
    (lambda layer, keep: (layer.weight * keep).log(), "NaN or infinite"),
    (lambda layer, keep: layer.weight * keep * 1e39, "NaN or infinite"),
    (lambda layer, keep: layer.weight * keep * 1j, "NaN or infinite"),
    (lambda layer, keep: None, "NoneType"),
    (in_place, "changed the weight"),
    (in_place_then_raises, "after the fact"),
    (raises, "KeyError"),
]


@pytest.mark.parametrize(("cheat", "words"), CHEATS)
@pytest.mark.parametrize("layer", ["0.weight", "2.weight"])
def test_a_cheat_is_refused_and_the_model_untouched(cheat, words, layer, registry_sandbox):
    # Only the named layer's update cheats: the other's must not have been written either.
    register(lambda seen, keep: cheat(seen, keep) if seen.name == layer else seen.weight * keep * 2)
    model = net()
    before = state(model)
    with pytest.raises(PluginError, match=words) as error:
        pb.prune(model, 0.5, "mover", "layerwise")
    assert "'mover'" in str(error.value)
    assert layer in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_failing_update_leaves_a_pruner_as_it_was(registry_sandbox):
    fail = []

    def update(layer, keep):
        if fail:
            raise ValueError("later")
        return layer.weight * keep

    register(update)
    model = net()
    pruner = pb.Pruner(model, 0.8, "mover", "layerwise", "linear", 2)
    pruner.step()
    before, masks = state(model), dict(pruner.masks)
    fail.append(1)
    with pytest.raises(PluginError, match="later"):
        pruner.step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(pruner.masks[name] is mask for name, mask in masks.items())


def test_scoring_still_changes_nothing(registry_sandbox):
    register(doubled)
    model = net()
    before = state(model)
    criteria.score("mover", model, prunable_modules(model))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
