"""The harness: groups that fit into memory, data that can be read once, state that nobody touches."""

import pytest
import torch
from torch import nn

from prunebench.criteria import gathering
from prunebench.criteria.gathering.movement import MovementObserver
from prunebench.masks import prunable_modules

EVERY = tuple(gathering.NEEDS)


class Counting(nn.Module):
    """Changes a buffer at every call, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return x


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(48, 20),
        nn.Linear(20, 4),
    )


def batches(size=4, n=11):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)
    return list(zip(x.split(size), y.split(size), strict=True))


def gathered(model, needs, data, **more):
    return list(gathering.gather(model, prunable_modules(model), needs, data, None, "test", **more))


def value(layer, need):
    found = getattr(layer, gathering.NEEDS[need].attribute)
    if need == "sample_gradients":
        return torch.cat([gradients for _, gradients in found.blocks(7)], 1)
    return torch.cat(list(found)) if need == "per_sample_gradients" else found


@pytest.mark.parametrize("need", EVERY)
def test_it_does_not_matter_how_the_samples_are_cut_into_batches(need):
    for one, other in zip(gathered(net(), (need,), batches(11)), gathered(net(), (need,), batches(3)), strict=True):
        a, b = value(one, need), value(other, need)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("need", EVERY)
def test_a_generator_will_do(need):
    first = gathered(net(), (need,), batches())
    again = gathered(net(), (need,), (batch for batch in batches()))
    for one, other in zip(first, again, strict=True):
        assert one.name == other.name
        assert value(one, need) is None or torch.equal(value(one, need), value(other, need))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_model_changes(training):
    model = nn.Sequential(net(), Counting()).train(training)
    model[0][1].eval()
    model[0][5].weight.requires_grad_(False)
    model[0][6].weight.grad = torch.full_like(model[0][6].weight, 7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    for _ in gathering.gather(model, prunable_modules(model), EVERY, batches(), None, "test"):
        assert [m.training for m in model.modules()] == modes
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert [p.requires_grad for p in model.parameters()].count(False) == 1
        assert [n for n, p in model.named_parameters() if p.grad is not None] == ["0.6.weight"]
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_inference_mode_outside_is_no_hindrance():
    model = net()
    expected = gathered(model, ("gradients", "hessian_product"), batches())
    with torch.inference_mode():
        found = gathered(model, ("gradients", "hessian_product"), batches())
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.grad, other.grad)
        assert torch.equal(one.hessian_product, other.hessian_product)


def test_layers_are_served_in_groups_that_fit(monkeypatch):
    passes = []
    model = net()
    model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    monkeypatch.setattr(gathering, "GROUP_BYTES", 4 * (9**2 + 48**2))  # the first two layers' matrices
    layers = gathering.gather(model, prunable_modules(model), ("input_gram",), batches(), None, "test")
    assert next(layers).name == "0.weight"
    assert next(layers).name == "5.weight"
    assert passes == [4, 4, 3]
    assert next(layers).name == "6.weight"
    assert passes == [4, 4, 3] * 2
    monkeypatch.setattr(gathering, "GROUP_BYTES", 1)  # a layer that is larger than the limit is served alone
    alone = gathered(model, ("input_gram",), batches())
    assert len(passes) == 6 + 9
    monkeypatch.undo()
    for one, other in zip(gathered(model, ("input_gram",), batches()), alone, strict=True):
        assert torch.equal(one.input_gram, other.input_gram)


def test_half_precision_is_summed_in_float32():
    model = nn.Sequential(nn.Linear(6, 3)).to(torch.bfloat16)
    data = [(torch.randn(5, 6).to(torch.bfloat16), torch.randint(0, 3, (5,)))] * 3
    needs = ("gradients", "squared_gradients", "hessian_product", "input_norms", "input_gram", "movement")
    (layer,) = gathered(model, needs, data)
    for need in needs:
        assert value(layer, need).dtype == torch.float32, need


class TestMovement:
    def test_it_sums_weight_times_gradient_at_the_weights_of_the_gradient(self):
        model = net().eval()
        modules = prunable_modules(model)
        watched = MovementObserver(modules)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        expected = {name: torch.zeros_like(m.weight) for name, m in modules.items()}
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for name, module in modules.items():
                expected[name] -= module.weight.detach() * module.weight.grad
            optimizer.step()
            watched.observe()
            watched.renew()
        for layer in gathered(model, ("movement",), None, watched=watched):
            torch.testing.assert_close(layer.movement, expected[layer.name])

    def test_before_any_step_the_data_gives_the_first_one_s(self):
        model = net()
        for with_observer in (None, MovementObserver(prunable_modules(model))):
            for layer in gathered(model, ("movement", "gradients"), batches(), watched=with_observer):
                torch.testing.assert_close(layer.movement, -layer.weight * layer.grad)

    def test_neither_is_a_clear_line(self):
        with pytest.raises(ValueError, match=r"no gradient.*pruner\.step\(\).*zero_grad.*data=") as error:
            gathered(net(), ("movement",), None)
        assert "\n" not in str(error.value)
