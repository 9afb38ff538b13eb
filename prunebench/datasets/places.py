"""Where a dataset's files lie under the folder of datasets. Imports no torch."""

from __future__ import annotations

PLACES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "cifar10_jpeg": "cifar10_jpeg.tar",
}
