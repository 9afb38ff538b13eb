"""MNIST, Fashion-MNIST and CIFAR through torchvision: found under the data folder, else downloaded on first use."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision

from prunebench.datasets.base import Dataset, Split, make
from prunebench.datasets.places import PLACES
from prunebench.errors import DatasetMissing
from prunebench.registry import dataset


@dataset("mnist")
def mnist(root: Path) -> Dataset:
    """MNIST (LeCun, Cortes, Burges), 28×28×1, 60,000 + 10,000."""
    return _load("mnist", torchvision.datasets.MNIST, root, 10)


@dataset("fashion_mnist")
def fashion_mnist(root: Path) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017), 28×28×1, 60,000 + 10,000."""
    return _load("fashion_mnist", torchvision.datasets.FashionMNIST, root, 10)


@dataset("cifar10")
def cifar10(root: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009), 32×32×3, 50,000 + 10,000."""
    return _load("cifar10", torchvision.datasets.CIFAR10, root, 10)


@dataset("cifar100")
def cifar100(root: Path) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009), 32×32×3, 50,000 + 10,000."""
    return _load("cifar100", torchvision.datasets.CIFAR100, root, 100)


def _load(name: str, kind: Any, root: Path, classes: int) -> Dataset:
    try:
        train = _split(kind(root, train=True, download=False))
        test = _split(kind(root, train=False, download=False))
    except (RuntimeError, OSError):
        _download(name, kind, root, PLACES[name])
        train, test = _split(kind(root, train=True)), _split(kind(root, train=False))
    return make(name, classes, train, test)


def _split(source: Any) -> Split:
    images = torch.as_tensor(source.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return Split(images.contiguous(), torch.as_tensor(source.targets).long())


def _download(name: str, kind: Any, root: Path, folder: str) -> None:
    # Into a folder beside the final one, moved when complete: an interrupted download leaves nothing half-written.
    advice = f"dataset {name!r} is not in {root} (looked for {folder}/)"
    remedy = (
        "put its files there, or name the folder that has them with --data DIR; --datasets digits needs no download"
    )
    made_root = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    except OSError as error:
        raise DatasetMissing(f"{advice} and the folder can't be written ({error.strerror}); {remedy}") from error
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(15)
        kind(partial, train=True, download=True)
        for made in partial.iterdir():
            if made.name == folder:
                os.replace(made, root / folder)
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DatasetMissing(f"{advice} and could not be downloaded ({reason}); {remedy}") from error
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(partial, ignore_errors=True)
        if made_root and not any(root.iterdir()):
            root.rmdir()
