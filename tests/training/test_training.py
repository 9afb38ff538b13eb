"""Training: accuracy by samples, seeds, divergence, decay, augmentation, and the loop against one written by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunebench.cell import Recipe
from prunebench.datasets.base import Dataset, Split
from prunebench.errors import UsageError
from prunebench.training.loop import Diverged, accuracy, crop_flip, decay, fit, objective, warmup

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


@pytest.mark.parametrize("changes", [{}, {"augment": "crop_flip"}, {"optimizer": "adam"}, {"precision": "bf16"}])
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


SGD = torch.optim.SGD


def rates(monkeypatch, recipe, **options):
    used = []

    class Spy(SGD):
        def step(self, closure=None):
            used.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    fit(model(), data(), recipe, epochs=2, learning_rate=0.2, seed=0, **options)
    return used


def test_warm_up_is_linear_and_the_decay_keeps_its_places(monkeypatch):
    recipe = replace(RECIPE, decay="step", warmup_epochs=0.75)  # of 4 steps an epoch: 3 steps
    assert rates(monkeypatch, recipe) == pytest.approx([0.2 / 3, 0.4 / 3] + [0.2] * 2 + [0.02] * 2 + [0.002] * 2)
    assert [warmup(s, 0.0) for s in (0, 5)] == [1.0, 1.0]


def test_part_of_a_training_stands_at_its_place(monkeypatch):
    whole = rates(monkeypatch, replace(RECIPE, decay="cosine"))
    assert rates(monkeypatch, replace(RECIPE, decay="cosine"), first_epoch=1) == whole[4:]
    assert rates(monkeypatch, replace(RECIPE, decay="cosine"), last_epoch=1) == whole[:4]


def test_nesterov_and_smoothing_are_torch_s():
    toy = data()
    net, own = model()[:3], model()[:3]
    net.append(nn.Linear(8, 3))
    own.append(nn.Linear(8, 3))
    own.load_state_dict(net.state_dict())
    recipe = replace(RECIPE, batch_size=64, nesterov=True, label_smoothing=0.1)
    fit(net, toy, recipe, epochs=3, learning_rate=0.1, seed=0)
    rule = torch.optim.SGD(own.parameters(), 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
    for _ in range(3):
        rule.zero_grad()
        log = own(toy.normalise(toy.train.images)).log_softmax(1)
        target = F.one_hot(toy.train.labels, 3) * 0.9 + 0.1 / 3
        (-(target * log).sum(1)).mean().backward()
        rule.step()
    for a, b in zip(net.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_distillation_is_hinton_s_formula():
    torch.manual_seed(0)
    recipe = Recipe(distill_weight=0.3, distill_temperature=2.0)
    teacher, x, logits, y = nn.Linear(4, 3), torch.randn(5, 4), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    p, q = (teacher(x) / 2).softmax(1), (logits / 2).softmax(1)
    kl = (p * (p.log() - q.log())).sum(1).mean()
    expected = 0.7 * -logits.log_softmax(1)[range(5), y].mean() + 0.3 * 4 * kl
    torch.testing.assert_close(objective(logits, y, recipe, teacher, x), expected)
    assert torch.equal(objective(logits, y, Recipe(), teacher, x), F.cross_entropy(logits, y))


def test_a_student_of_nothing_but_its_teacher_becomes_like_it():
    toy, teacher, student = data(), model(1), model(2)
    recipe = replace(RECIPE, distill_weight=1.0, weight_decay=0.0)
    frozen = [p.clone() for p in teacher.parameters()]
    x = toy.normalise(toy.train.images)
    far = (student.eval()(x).softmax(1) - teacher.eval()(x).softmax(1)).abs().mean()
    fit(student, toy, recipe, epochs=60, learning_rate=0.02, seed=0, teacher=teacher)
    near = (student(x).softmax(1) - teacher(x).softmax(1)).abs().mean()
    assert near < far / 2
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), frozen, strict=True))
    assert all(p.grad is None for p in teacher.parameters())


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(UsageError, match=r"fp16.*GPU"):
        fit(model(), data(), replace(RECIPE, precision="fp16"), epochs=1, learning_rate=0.1, seed=0)


def test_bfloat16_trains_float32_weights_a_little_otherwise():
    exact, rough = trained(), trained(precision="bf16")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.02)


def test_a_step_can_be_replaced():
    net, asked = model(), []
    before = [p.clone() for p in net.parameters()]

    def instead(step, steps, optimizer):
        asked.append((step, steps, all(p.grad is not None for p in net.parameters())))
        return True

    fit(net, data(), RECIPE, epochs=1, learning_rate=0.1, seed=0, instead_of_step=instead)
    assert asked == [(i, 4, True) for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


def test_epochs_are_reported(monkeypatch):
    told = []
    loss = fit(model(), data(), RECIPE, epochs=2, learning_rate=0.1, seed=0, after_epoch=told.append)
    assert [(e.number, e.step, e.learning_rate) for e in told] == [(1, 4, 0.1), (2, 8, 0.1)]
    assert told[-1].loss == loss
    assert all(e.seconds > 0 for e in told)


class Memory:
    """A keeper in memory, as one on disk would be: contiguous copies."""

    def __init__(self, kept=None):
        self.kept, self.written = kept, []

    def read(self):
        return self.kept

    def due(self):
        return True

    def write(self, tensors, values):
        self.written.append(({n: t.detach().contiguous().clone() for n, t in tensors.items()}, dict(values)))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(24, 3)
    )


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam"}, {"augment": "crop_flip", "nesterov": True}, {"precision": "bf16"}]
)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_goes_on_bit_for_bit(changes, stop):
    recipe = replace(RECIPE, decay="cosine", **changes)
    options = {"epochs": 3, "learning_rate": 0.01, "seed": 5}
    whole, memory = convolutional(), Memory()
    loss = fit(whole, data(), recipe, **options, keeper=memory)
    assert [values["epoch"] for _, values in memory.written] == [1, 2, 3]
    other = convolutional()
    torch.manual_seed(99)
    for p in other.parameters():
        nn.init.normal_(p)
    assert fit(other, data(), recipe, **options, keeper=Memory(memory.written[stop - 1])) == loss
    for (name, a), b in zip(whole.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_keeping_changes_nothing():
    one, two = convolutional(), convolutional()
    fit(one, data(), RECIPE, epochs=2, learning_rate=0.1, seed=0)
    fit(two, data(), RECIPE, epochs=2, learning_rate=0.1, seed=0, keeper=Memory(), after_epoch=lambda e: two.eval())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.slow
def test_a_compiled_model_trains_alike():
    one, two = convolutional()[:4], convolutional()[:4]
    for net in (one, two):
        torch.manual_seed(3)
        net.append(nn.Linear(24, 3))
    fit(one, data(), RECIPE, epochs=1, learning_rate=0.1, seed=0)
    fit(two, data(), replace(RECIPE, compiled=True), epochs=1, learning_rate=0.1, seed=0)
    assert one.state_dict().keys() == two.state_dict().keys()
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
