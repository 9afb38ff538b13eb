"""Prune, fine-tune, run and save a model of your own: `python examples/prune_your_model.py`.

Is it worth it on your machine? `prunebench compile examples/prune_your_model.py:build --input 16,3,64,64`.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import prunebench as pb


def build() -> nn.Module:
    """Stands for your model."""
    return torchvision.models.resnet18(num_classes=10)


def main() -> None:
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batches = [(torch.randn(8, 3, 64, 64), torch.randint(10, (8,))) for _ in range(5)]  # stands for your data loader

    # 1. In your training loop: AGP to 90 % in as many steps as you train; pruned weights stay zero.
    pruner = pb.Pruner(model, sparsity=0.9, criterion="l1", scope="global", schedule="agp", steps=len(batches))
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
    print(f"pruned: {100 * pruner.current_sparsity:.1f} % of the conv and linear weights are zero")

    # 2. A smaller file.
    model.eval()
    dense = pb.save(model, "dense.safetensors", format="dense")
    small = pb.save(model, "small.safetensors", format="bitmask")
    print(f"on disk: {dense:,} -> {small:,} bytes")

    # 3. A faster network. The engine takes the weights as they are now: compile again after changing them.
    x = torch.randn(16, 3, 64, 64)
    engine = pb.compile(model, x, backend="csr", threads=1)
    with torch.inference_mode():
        error = (engine(x) - model(x)).abs().max() / model(x).abs().max()
    print(f"in memory: {engine.nbytes:,} bytes of weights; largest difference from torch {error:.1e}")
    print("how much faster: prunebench compile small.safetensors --model prune_your_model.py:build --input 16,3,64,64")


if __name__ == "__main__":
    main()
