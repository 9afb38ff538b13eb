"""Filters beside attention: projections and the sum through the blocks stay whole; the MLPs' hidden units may go."""

import pytest
import torch
import torchvision
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.granularities.ties import tied_filters
from prunebench.masks import prunable_modules


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.before, self.inputs = nn.Linear(12, 8), nn.Linear(8, 16)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(self.inputs(self.before(x).relu())).mean(1))


class ByHand(nn.Module):
    """Attention written out, queries, keys and values each with a layer of its own."""

    def __init__(self):
        super().__init__()
        self.stem, self.q, self.k, self.v = (nn.Linear(12 if i == 0 else 16, 16) for i in range(4))
        self.hidden, self.back, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ self.v(x)
        return self.head((x + self.back(self.hidden(x).relu())).mean(1))


def vision_transformer():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)


@pytest.mark.parametrize(
    ("make", "free"),
    [
        (lambda: models.build("vit_tiny_cifar:depth=2", (3, 32, 32), 10), {"blocks.0.fc1", "blocks.1.fc1"}),
        (vision_transformer, {f"encoder.layers.encoder_layer_{i}.mlp.0" for i in range(2)}),
        (Encoder, {"before"}),
        (ByHand, {"hidden"}),
    ],
    ids=["vit_tiny_cifar", "torchvision", "encoder", "by_hand"],
)
def test_only_hidden_units_lose_filters(make, free):
    model = make().eval()
    assert {frozenset(g) for g in tied_filters(model, prunable_modules(model))} == {
        frozenset([f"{name}.weight"]) for name in free
    }
    masks = pb.prune(model, 0.5, granularity="filter")
    assert {name.removesuffix(".weight") for name, mask in masks.items() if not mask.all()} == free


def test_a_softmax_at_the_end_of_a_cnn_changes_nothing():
    body = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 3)]
    plain, ends = nn.Sequential(*body), nn.Sequential(*body, nn.Softmax(1))
    expected = tied_filters(plain, prunable_modules(plain))
    assert tied_filters(ends, prunable_modules(ends)) == expected == [("0.weight",), ("2.weight",)]


@pytest.mark.parametrize(
    ("make", "free"),
    [
        (lambda: models.build("vit_tiny_cifar:depth=2", (3, 32, 32), 10), {"blocks.0.fc2", "blocks.1.fc2"}),
        (vision_transformer, {f"encoder.layers.encoder_layer_{i}.mlp.3" for i in range(2)}),
    ],
    ids=["vit_tiny_cifar", "torchvision"],
)
def test_only_hidden_units_lose_their_readers_and_compact_takes_them_out(make, free):
    model, x = make().eval(), torch.randn(2, 3, 32, 32)
    masks = pb.prune(model, 0.5, granularity="channel")
    assert {name.removesuffix(".weight") for name, mask in masks.items() if not mask.all()} == free
    smaller = pb.compact(model, x)
    torch.testing.assert_close(smaller(x), model(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in smaller.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
