"""What a criterion asks for: gradients equal to the full batch's, inputs as they came, the model as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.criteria.gathering.activations import ACTIVATION_SAMPLES
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


@pytest.fixture
def asked(registry_sandbox):
    """Registers criteria that keep what they were given."""
    seen = {}

    @pb.criterion("by_gradient", needs=("gradients",))
    def by_gradient(layer):
        seen[layer.name] = layer.grad.clone()
        return (layer.grad * layer.weight).abs()

    @pb.criterion("by_input", needs=("activations",))
    def by_input(layer):
        seen[layer.name] = layer.activations.clone()
        return layer.weight.abs()

    @pb.criterion("by_both", needs=("gradients", "activations"))
    def by_both(layer):
        seen[layer.name] = (layer.grad.clone(), layer.activations.clone())
        return layer.weight.abs()

    return seen


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16, 4)
    )


def samples(n=23):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def batches(size, n=23):
    x, y = samples(n)
    return list(zip(x.split(size), y.split(size), strict=True))


def full_gradients(model, loss=F.cross_entropy):
    x, y = samples()
    model.eval()
    value = loss(model(x), y)
    return torch.autograd.grad(value, [model[0].weight, model[5].weight])


@pytest.mark.parametrize("size", [23, 7, 5, 1])  # 7 and 5 leave a short last batch
def test_the_gradient_is_that_of_the_full_batch(asked, size):
    expected = full_gradients(net())
    pb.prune(net(), 0.5, "by_gradient", data=batches(size))
    for found, right in zip((asked["0.weight"], asked["5.weight"]), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-7)


def test_another_loss_is_used(asked):
    def loss(out, y):
        return ((out - F.one_hot(y, 4)) ** 2).mean()

    expected = full_gradients(net(), loss)
    pb.prune(net(), 0.5, "by_gradient", data=batches(7), loss=loss)
    torch.testing.assert_close(asked["5.weight"], expected[1], rtol=1e-5, atol=1e-7)


def test_the_masks_follow_the_gradient(asked):
    model = net()
    gradients = full_gradients(net())
    scores = torch.cat(
        [(g * w).abs().flatten() for g, w in zip(gradients, (model[0].weight, model[5].weight), strict=True)]
    )
    masks = pb.prune(model, 0.5, "by_gradient", data=batches(23))
    kept = torch.cat([m.flatten() for m in masks.values()])
    assert scores[kept].min() >= scores[~kept].max() * 0.999


def test_inputs_arrive_as_the_layer_saw_them(asked):
    model = net().eval()
    x, _ = samples()
    pb.prune(net(), 0.5, "by_input", data=batches(7))
    torch.testing.assert_close(asked["0.weight"], x)
    torch.testing.assert_close(asked["5.weight"], model[:5](x).detach(), rtol=1e-5, atol=1e-6)


def test_inputs_are_bounded(asked):
    pb.prune(net(), 0.5, "by_input", data=batches(100, ACTIVATION_SAMPLES + 80))
    x, _ = samples(ACTIVATION_SAMPLES + 80)
    torch.testing.assert_close(asked["0.weight"], x[:ACTIVATION_SAMPLES])


def test_both_at_once(asked):
    pb.prune(net(), 0.5, "by_both", data=batches(7))
    torch.testing.assert_close(asked["5.weight"][0], full_gradients(net())[1], rtol=1e-5, atol=1e-7)
    assert asked["5.weight"][1].shape == (23, 48)


def test_gathering_leaves_the_model_as_it_was(asked):
    model = net().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.full_like(model[5].weight, 7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    modules = prunable_modules(model)
    criteria.score("by_both", model, modules, data=batches(7))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model[0].weight.requires_grad
    assert model[0].weight.grad is None
    assert torch.equal(model[5].weight.grad, torch.full_like(model[5].weight, 7.0))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_it_works_where_gradients_are_off(asked):
    with torch.no_grad():
        pb.prune(net(), 0.5, "by_gradient", data=batches(7))
    torch.testing.assert_close(asked["5.weight"], full_gradients(net())[1], rtol=1e-5, atol=1e-7)


def test_a_failing_batch_leaves_hooks_and_mode_behind_nowhere(asked):
    model = net().train()
    with pytest.raises(RuntimeError):
        pb.prune(model, 0.5, "by_both", data=[(torch.randn(2, 5, 6, 6), torch.zeros(2, dtype=torch.int64))])
    assert all(m.training for m in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["by_gradient", "by_input"])
@pytest.mark.parametrize(("data", "words"), [(None, "needs data"), ([], "no batch"), ([torch.zeros(3)], r"\(x, y\)")])
def test_missing_data_is_one_clear_line(asked, name, data, words):
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError, match=words) as error:
        pb.prune(model, 0.5, name, data=data)
    assert f"'{name}'" in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_pruner_asks_for_data_when_it_is_made(asked):
    with pytest.raises(UsageError, match="needs data"):
        pb.Pruner(net(), 0.5, "by_gradient")


def test_a_layer_that_never_runs_is_named(asked):
    model = net()
    model.spare = nn.Linear(3, 3)
    model.forward = lambda x: nn.Sequential(*list(model.children())[:-1])(x)
    with pytest.raises(UsageError, match=r"spare\.weight.*never ran"):
        pb.prune(model, 0.5, "by_input", data=batches(7))
    pb.prune(model, 0.5, "by_gradient", "layerwise", data=batches(7))
    assert torch.equal(asked["spare.weight"], torch.zeros(3, 3))


def test_a_layer_says_what_was_not_asked_for(registry_sandbox):
    @pb.criterion("forgetful")
    def forgetful(layer):
        return layer.grad

    with pytest.raises(Exception, match=r"layer\.grad was not asked for.*needs=\('gradients',\)") as error:
        pb.prune(net(), 0.5, "forgetful")
    assert "'forgetful'" in str(error.value)
