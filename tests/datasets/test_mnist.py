"""MNIST's official files, found and never downloaded again; a machine without them or a network is told so."""

import pytest
import torch

from prunebench import datasets
from prunebench.errors import DatasetMissing


def test_the_official_files(shared_data):
    data = datasets.load("mnist", shared_data)
    # A tenth of every class is held out, rounded by class.
    assert (len(data.train), len(data.validation), len(data.test)) == (54001, 5999, 10000)
    assert data.input_shape == (1, 28, 28)
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.mean.item() == pytest.approx(0.1307, abs=5e-4)
    assert data.std.item() == pytest.approx(0.3081, abs=5e-4)
    assert torch.bincount(torch.cat([data.train.labels, data.validation.labels])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_without_files_or_network_the_remedy_is_told_and_nothing_is_left(name, tmp_path, monkeypatch):
    import torchvision

    kind = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]

    def offline(self):
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(getattr(torchvision.datasets, kind), "download", offline)
    root = tmp_path / "data"
    with pytest.raises(DatasetMissing, match=r"--data DIR.*digits needs no download") as error:
        datasets.load(name, root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)
    assert not root.exists()
