"""The embedded digits: sizes, splits that never meet, normalisation, resident bytes."""

import pytest
import torch

from prunebench import datasets
from prunebench.datasets.base import Split, make, resize
from prunebench.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_sizes(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1295, 142, 360)
    assert digits.input_shape == (1, 28, 28)
    assert (digits.name, digits.classes) == ("digits", 10)


def test_every_image_of_scikit_learn_is_there_once():
    from sklearn.datasets import load_digits

    data = datasets.load("digits:size=8")
    ours = torch.cat([s.images for s in (data.train, data.validation, data.test)]).flatten(1)
    theirs = torch.from_numpy(load_digits().data * 255 / 16).round().to(torch.uint8)
    assert sorted(map(bytes, ours.numpy())) == sorted(map(bytes, theirs.numpy()))


def test_each_split_has_every_class_in_its_share(digits):
    for split, share in ((digits.train, 0.72), (digits.validation, 0.08), (digits.test, 0.2)):
        counts = torch.bincount(split.labels, minlength=10)
        total = torch.bincount(torch.cat([s.labels for s in (digits.train, digits.validation, digits.test)]))
        assert ((counts / total - share).abs() < 0.015).all()


def test_it_is_the_same_every_time(digits):
    again = datasets.load("digits")
    for a, b in ((digits.train, again.train), (digits.validation, again.validation), (digits.test, again.test)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_training_images_are_normalised(digits):
    x = digits.normalise(digits.train.images)
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_batches_go_through_a_split_in_order(digits):
    batches = list(digits.batches(digits.test, 100))
    assert [len(y) for _, y in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([y for _, y in batches]), digits.test.labels)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_other_sizes(size):
    data = datasets.load(f"digits:size={size}")
    assert data.input_shape == (1, size, size)
    assert data.name == f"digits:size={size}"


@pytest.mark.parametrize(
    "text",
    [
        "digits:size=3",
        "digits:size=2000",
        "digits:size=big",
        "digits:size=8.5",
        "digits:28",
        "digits:colour=1",
        "digit",
    ],
)
def test_what_can_not_be_is_one_line(text):
    with pytest.raises(UsageError) as error:
        datasets.load(text)
    assert "\n" not in str(error.value)


def test_held_out_images_are_balanced_and_fixed():
    labels = torch.arange(3).repeat_interleave(20)
    split = Split(torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1), labels)
    one, two = make("toy", 3, split, split), make("toy", 3, split, split)
    assert torch.bincount(one.validation.labels).tolist() == [2, 2, 2]
    assert torch.equal(one.validation.images, two.validation.images)
    kept = set(one.train.images.flatten().tolist())
    held = set(one.validation.images.flatten().tolist())
    assert not kept & held
    assert kept | held == set(range(60))


def test_means_and_deviations_are_those_of_the_training_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 5, 5), generator=generator, dtype=torch.uint8)
    data = make("toy", 2, Split(images, torch.arange(200) % 2), Split(images, torch.arange(200) % 2))
    values = data.train.images.double() / 255
    torch.testing.assert_close(data.mean.double(), values.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.std.double(), values.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)


def test_resizing_keeps_bytes_and_range():
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert resize(images, 8) is images
    larger = resize(images, 20)
    assert larger.shape == (3, 1, 20, 20)
    assert larger.dtype == torch.uint8
    assert torch.equal(
        resize(torch.full((1, 1, 8, 8), 77, dtype=torch.uint8), 13), torch.full((1, 1, 13, 13), 77).byte()
    )
