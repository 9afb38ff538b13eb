"""Your own images: folder or tar, classes by name, sizes, and folders that can't be."""

import tarfile

import pytest
import torch
from PIL import Image

from prunebench import datasets
from prunebench.errors import DatasetMissing, UsageError

COLOURS = {"cat": (255, 0, 0), "dog": (0, 255, 0), "eel": (0, 0, 255)}


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for part, count in (("train", 10), ("test", 3)):
        for label, colour in COLOURS.items():
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 12), colour).save(folder / f"{i}.png")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    return root


def check(data):
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 9)
    assert data.classes == 3
    assert data.input_shape == (3, 12, 12)
    expected = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)  # classes in alphabetical order
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.images[:, :, 5, 5], expected[split.labels])


def test_a_folder(photos):
    check(datasets.load(f"imagefolder:{photos}"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_of_one(photos, tmp_path, mode):
    with tarfile.open(tmp_path / "photos.tar", mode) as archive:
        archive.add(photos, "anything")
    check(datasets.load(f"imagefolder:{tmp_path / 'photos.tar'}"))


def test_images_of_different_sizes_need_a_size(photos):
    Image.new("RGB", (30, 20), COLOURS["cat"]).save(photos / "train" / "cat" / "wide.png")
    with pytest.raises(UsageError, match=":size=64"):
        datasets.load(f"imagefolder:{photos}")
    data = datasets.load(f"imagefolder:{photos}:size=9")
    assert data.input_shape == (3, 9, 9)
    assert len(data.train) + len(data.validation) == 31


def test_grey_images_become_rgb(photos):
    Image.new("L", (12, 12), 100).save(photos / "test" / "cat" / "grey.png")
    assert (datasets.load(f"imagefolder:{photos}").test.images[:, :, 0, 0] == 100).all(1).sum() == 1


def damaged(photos):
    (photos / "train" / "cat" / "bad.jpg").write_bytes(b"no image")


def strange_class(photos):
    (photos / "test" / "fox").mkdir()
    Image.new("RGB", (12, 12)).save(photos / "test" / "fox" / "a.png")


def no_test(photos):
    for file in (photos / "test").glob("*/*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"), [(damaged, r"bad\.jpg"), (strange_class, "'fox' is in test"), (no_test, "needs train/CLASS")]
)
def test_what_can_not_be_is_one_line(photos, spoil, words):
    spoil(photos)
    with pytest.raises(UsageError, match=words) as error:
        datasets.load(f"imagefolder:{photos}")
    assert "\n" not in str(error.value)


def test_a_missing_place_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DatasetMissing, match="nowhere"):
        datasets.load(f"imagefolder:{tmp_path}/nowhere")
    with pytest.raises(UsageError, match="needs a path"):
        datasets.load("imagefolder")
    with pytest.raises(DatasetMissing, match=r"cifar10_jpeg\.tar"):
        datasets.load("cifar10_jpeg", tmp_path)


def test_a_file_that_is_no_tar_is_one_line(tmp_path):
    (tmp_path / "photos.tar").write_bytes(b"no tar at all")
    with pytest.raises(UsageError, match="readable tar"):
        datasets.load(f"imagefolder:{tmp_path / 'photos.tar'}")


def test_the_content_is_known_by_its_files(photos):
    text = f"imagefolder:{photos}:size=8"
    before = datasets.load(text).content
    assert before
    assert before == datasets.load(text).content
    Image.new("RGB", (12, 12)).save(photos / "train" / "cat" / "new.png")
    assert datasets.load(text).content != before
    assert datasets.load("digits:size=8").content is None
