"""Training: accuracy by samples, seeds, divergence, decay, augmentation, and the loop against one written by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.cell import Recipe
from prunebench.datasets.base import Dataset, Split
from prunebench.training import Diverged, accuracy, crop_flip, decay, fit

RECIPE = Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-2, batch_size=16, decay="constant")


def data(n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    split = Split(images, labels)
    return Dataset("toy", 3, split, split, split, torch.tensor([0.5]), torch.tensor([0.25]))


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.parametrize("batch", [1, 7, 10, 49, 50, 500])
def test_accuracy_counts_samples_whatever_the_batch(batch):
    toy = data()
    wrong = toy.test.labels.clone()
    wrong[-1] = (wrong[-1] + 1) % 3  # one mistake, in the short last batch
    answers = iter(F.one_hot(wrong, 3).split(batch))
    assert accuracy(lambda x: next(answers), toy, toy.test, batch) == 49 / 50


def test_accuracy_is_normalised_and_in_order():
    toy = data()
    seen = []

    def predict(x):
        seen.append(x)
        return torch.zeros(len(x), 3)

    accuracy(predict, toy, toy.test, 20)
    assert [len(x) for x in seen] == [20, 20, 10]
    torch.testing.assert_close(torch.cat(seen), (toy.test.images / 255 - 0.5) / 0.25)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_epoch_of_one_batch_is_one_step_by_hand(optimizer):
    toy = data()
    net, own = model()[:3], model()[:3]
    net.append(nn.Linear(8, 3))
    own.append(nn.Linear(8, 3))
    own.load_state_dict(net.state_dict())
    recipe = replace(RECIPE, optimizer=optimizer, batch_size=64)
    loss = fit(net, toy, recipe, epochs=1, learning_rate=0.1, seed=0)
    step = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
        "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=1e-2),
    }[optimizer](own.parameters())
    value = F.cross_entropy(own(toy.normalise(toy.train.images)), toy.train.labels)
    value.backward()
    step.step()
    assert loss == pytest.approx(value.item(), rel=1e-5)
    for a, b in zip(net.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def trained(seed=3, outside=0, **changes):
    net = model()
    torch.manual_seed(outside)
    recipe = replace(RECIPE, **changes)
    fit(net, data(), recipe, epochs=3, learning_rate=0.05, seed=seed)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("changes", [{}, {"augment": "crop_flip"}, {"optimizer": "adam"}])
def test_the_seed_decides_and_nothing_else(changes):
    first = trained(outside=1, **changes)
    assert torch.equal(first, trained(outside=2, **changes))
    assert not torch.equal(first, trained(seed=4, **changes))


def test_training_leaves_the_global_generator_alone():
    net = model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(net, data(), RECIPE, epochs=1, learning_rate=0.1, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_hooks_surround_every_step():
    calls = []
    net = model()
    fit(
        net,
        data(),
        RECIPE,
        epochs=2,
        learning_rate=0.1,
        seed=0,
        before_step=lambda step, steps: calls.append((step, steps)),
        after_step=lambda: calls.append("after"),
        progress=lambda step, steps: calls.append(f"{step} of {steps}"),
    )
    assert calls[0::1][:2] == [(0, 8), "after"]  # 50 samples in batches of 16: 4 steps an epoch
    assert [c for c in calls if isinstance(c, tuple)] == [(i, 8) for i in range(8)]
    assert calls.count("after") == 8
    assert [c for c in calls if isinstance(c, str) and c != "after"] == ["4 of 8", "8 of 8"]
    assert not net.training


def test_every_sample_is_seen_once_an_epoch(monkeypatch):
    toy = data()
    seen = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    net.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    fit(net, toy, RECIPE, epochs=2, learning_rate=0.01, seed=0)
    assert [len(x) for x in seen] == [16, 16, 16, 2] * 2
    everything = toy.normalise(toy.train.images).flatten(1).sum(1).sort().values
    for epoch in (seen[:4], seen[4:]):
        torch.testing.assert_close(torch.cat(epoch).flatten(1).sum(1).sort().values, everything)
    assert not torch.equal(torch.cat(seen[:4]), torch.cat(seen[4:]))


def test_no_epochs_change_nothing():
    net = model()
    before = [p.clone() for p in net.parameters()]
    fit(net, data(), RECIPE, epochs=0, learning_rate=0.1, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


def test_frozen_parameters_stay():
    net = model()
    net[1].weight.requires_grad_(False)
    before = net[1].weight.clone()
    fit(net, data(), RECIPE, epochs=1, learning_rate=0.1, seed=0)
    assert torch.equal(net[1].weight, before)


def test_a_loss_that_explodes_is_told():
    with pytest.raises(Diverged, match=r"epoch \d of 20") as error:
        fit(model(), data(), RECIPE, epochs=20, learning_rate=1e12, seed=0)
    assert "\n" not in str(error.value)


def test_a_last_step_that_explodes_is_told_too():
    # One step: its loss, computed before it, is finite.
    recipe = replace(RECIPE, batch_size=64, weight_decay=0.0)
    with pytest.raises(Diverged, match="a weight is NaN or infinite"):
        fit(model(), data(), recipe, epochs=1, learning_rate=float("inf"), seed=0)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("constant", {0: 1, 0.3: 1, 1: 1}),
        ("step", {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1: 0.01}),
        ("cosine", {0: 1, 0.25: 0.8535533906, 0.5: 0.5, 1: 0}),
    ],
)
def test_decay(kind, shape):
    for t, factor in shape.items():
        assert decay(kind, t) == pytest.approx(factor, abs=1e-9)


def test_the_learning_rate_follows_the_decay(monkeypatch):
    used = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            used.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    fit(model(), data(), replace(RECIPE, decay="step"), epochs=2, learning_rate=0.2, seed=0)
    assert used == pytest.approx([0.2] * 4 + [0.02] * 2 + [0.002] * 2)


def test_crop_flip_gives_shifted_and_mirrored_originals():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (40, 2, 5, 6), generator=generator, dtype=torch.uint8)
    out = crop_flip(images, torch.Generator().manual_seed(1), pad=2)
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    padded = F.pad(images, (2, 2, 2, 2))
    flips, shifts = set(), set()
    for i in range(len(images)):
        found = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for crop in [padded[i, :, top : top + 5, left : left + 6]]
            if torch.equal(out[i], crop.flip(2) if flip else crop)
        ]
        assert len(found) == 1
        shifts.add(found[0][:2])
        flips.add(found[0][2])
    assert flips == {False, True}
    assert len(shifts) > 10


def test_crop_flip_is_decided_by_its_generator():
    images = data().train.images
    one, two, other = (crop_flip(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(images, data().train.images)
