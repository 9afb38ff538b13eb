"""A Vision Transformer for small images (Dosovitskiy et al. 2021), about as large as ResNet-20 unless told otherwise.

Pre-norm blocks, learned positions, and the mean of the tokens instead of a class token (Beyer et al. 2022). Queries,
keys and values come from one plain linear layer and the heads' outputs go through another, so that every projection
is pruned, and run by every backend, like any linear layer. 311,146 parameters on 32×32×3 with 10 classes;
DeiT-Tiny's width and heads (Touvron et al. 2021) at half its depth are `vit_tiny_cifar:depth=6:dim=192`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from prunebench.errors import UsageError
from prunebench.registry import model


class Attention(nn.Module):
    """Multi-head self-attention, softmax(QKᵀ/√d)·V per head: (n, tokens, dim) -> the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (n, tokens, dim) -> the same."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.fc1, self.gelu, self.fc2 = (
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches as tokens, blocks, norm, mean over tokens, linear: (n, channels, height, width) -> (n, classes)."""

    def __init__(
        self, shape: tuple[int, int, int], classes: int, patch: int, dim: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.position = nn.Parameter(torch.empty(1, (height // patch) * (width // patch), dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


@model("vit_tiny_cifar")
def vit_tiny_cifar(
    input_shape: tuple[int, int, int],
    classes: int,
    patch: int = 4,
    dim: int = 96,
    depth: int = 4,
    heads: int = 3,
    mlp: int = 2,
) -> nn.Module:
    """`depth` blocks of width `dim` over patches of `patch`×`patch` pixels; the MLPs are `mlp` times as wide.

    Raises UsageError where the image's sides aren't multiples of the patch, or the width none of the heads.
    """
    for name, value in (("patch", patch), ("dim", dim), ("depth", depth), ("heads", heads), ("mlp", mlp)):
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"model 'vit_tiny_cifar': {name}={value} can't be used; give a whole number of at least 1")
    _, height, width = input_shape
    if height % patch or width % patch:
        raise UsageError(
            f"model 'vit_tiny_cifar' cuts images into {patch}x{patch} patches, which {height}x{width} is no multiple "
            "of; give another one, for example vit_tiny_cifar:patch=2"
        )
    if dim % heads:
        raise UsageError(f"model 'vit_tiny_cifar': dim={dim} is no multiple of heads={heads}; give one that is")
    return VisionTransformer(input_shape, classes, patch, dim, depth, heads, mlp * dim)
