"""scikit-learn's embedded digits: 1,797 real handwritten 8×8 digits (Alpaydin & Kaynak 1998), upsampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from prunebench.datasets.base import Dataset, Split, check_size, make, resize
from prunebench.registry import dataset


@dataset("digits", check=lambda size: check_size(size, "digits"))
def digits(root: Path, size: int = 28) -> Dataset:
    """Digits at size×size×1 (28 as MNIST has it); a fixed fifth, drawn by class, is the test split."""
    check_size(size, "digits")
    source = load_digits()
    images = torch.from_numpy(source.images).float().mul_(255 / 16).round_().to(torch.uint8)[:, None]
    images, labels = resize(images, size), torch.from_numpy(source.target).long()
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=source.target)
    name = "digits" if size == 28 else f"digits:size={size}"
    made = make(name, 10, Split(images[train], labels[train]), Split(images[test], labels[test]))
    return replace(made, content=None)  # embedded: the name says it all
