"""A dataset as resident tensors: train, validation and test splits, and how a batch is normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from prunebench.errors import UsageError


@dataclass(frozen=True)
class Split:
    """images (n, channels, height, width) uint8 and labels (n,) int64, both resident."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Three splits with the channel means and deviations of the training images (in 0…1 units)."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor
    content: str | None = None  # hash of all images and labels; None where the name alone decides them

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def to(self, device: str) -> Dataset:
        """The same with every tensor on a device; itself where it is there already."""
        if self.train.labels.device.type == device:
            return self
        parts = {
            name: Split(split.images.to(device), split.labels.to(device))
            for name, split in (("train", self.train), ("validation", self.validation), ("test", self.test))
        }
        return replace(self, **parts, mean=self.mean.to(device), std=self.std.to(device))  # type: ignore[arg-type]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (n, c, h, w) -> float32 of zero mean and unit deviation per channel."""
        scale = (1 / (255 * self.std)).view(-1, 1, 1)
        return images.float().mul_(scale).sub_((self.mean / self.std).view(-1, 1, 1))

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches in order; the last one may be short."""
        for start in range(0, len(split), size):
            yield self.normalise(split.images[start : start + size]), split.labels[start : start + size]


def make(name: str, classes: int, train: Split, test: Split, *, validation_share: float = 0.1) -> Dataset:
    """A dataset from its official train and test parts; validation is held out from train, by class, always alike."""
    generator = torch.Generator().manual_seed(20240229)
    held = torch.zeros(len(train), dtype=torch.bool)
    for label in range(classes):
        members = (train.labels == label).nonzero().flatten()
        held[members[torch.randperm(len(members), generator=generator)[: round(len(members) * validation_share)]]] = (
            True
        )
    kept = Split(train.images[~held], train.labels[~held])
    # Summed in float64 by chunks that fit the cache: a float32 mean over 50 million pixels is off in the third digit.
    total, square = torch.zeros(2, kept.images.shape[1], dtype=torch.float64)
    for chunk in kept.images.split(500):
        pixels = chunk.float() / 255
        total += pixels.sum((0, 2, 3), dtype=torch.float64)
        square += pixels.square_().sum((0, 2, 3), dtype=torch.float64)
    count = kept.images.numel() / kept.images.shape[1]
    mean = total / count
    std = (square / count - mean**2).clamp_min(1e-8).sqrt()
    content = hashlib.sha256()
    for part in (train.images, train.labels, test.images, test.labels):
        content.update(part.contiguous().numpy().data)
    held_out = Split(train.images[held], train.labels[held])
    return Dataset(name, classes, kept, held_out, test, mean.float(), std.float(), content.hexdigest()[:16])


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 (n, c, h, w) -> uint8 (n, c, size, size), bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def check_size(size: int, name: str) -> int:
    """The size, or UsageError where it isn't a whole number of pixels from 4 to 1024."""
    if not isinstance(size, int) or not 4 <= size <= 1024:
        raise UsageError(f"dataset {name!r}: size={size} can't be used; give pixels per side from 4 to 1024")
    return size
