"""Conv and linear layers as one matrix product over the whole batch, whatever library multiplies (im2col for convs).

A library's matrix has `product(dense)`, float32 (columns, n) -> (rows, n), `nonzeros` and `nbytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.attention import unfused
from prunebench.backends.torch_modules import TorchExecutor


class Matrix(Protocol):
    """A weight (rows, columns) as a library holds it."""

    nonzeros: int
    nbytes: int

    def product(self, dense: Tensor) -> Tensor:
        """This matrix times dense (columns, n), float32 and contiguous."""


class MatrixLinear(nn.Module):
    """y = (W xᵀ)ᵀ + b with W a matrix (out, in): (…, in) -> (…, out)."""

    def __init__(self, layer: nn.Linear, matrix: Callable[[Tensor], Matrix]) -> None:
        super().__init__()
        self.matrix, self.bias = matrix(layer.weight.detach()), layer.bias
        self.shape, self.sparsity = tuple(layer.weight.shape), 1 - self.matrix.nonzeros / layer.weight.numel()

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    def forward(self, x: Tensor) -> Tensor:
        y = self.matrix.product(x.reshape(-1, x.shape[-1]).t().contiguous()).t()
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.shape[0])


class MatrixConv2d(nn.Module):
    """Convolution as W · im2col(x), one matrix (out/groups, in/groups·kh·kw) per group, all images at once."""

    def __init__(self, layer: nn.Conv2d, matrix: Callable[[Tensor], Matrix]) -> None:
        super().__init__()
        self.layer_padding = layer._reversed_padding_repeated_twice
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.matrices = [matrix(part.detach().flatten(1)) for part in layer.weight.chunk(layer.groups)]
        self.bias = layer.bias
        self.shape = tuple(layer.weight.shape)
        self.sparsity = 1 - sum(m.nonzeros for m in self.matrices) / layer.weight.numel()

    @property
    def nbytes(self) -> int:
        return sum(m.nbytes for m in self.matrices)

    def forward(self, x: Tensor) -> Tensor:
        if any(self.layer_padding):
            x = F.pad(x, self.layer_padding, mode=self.mode)
        n, _, height, width = x.shape
        rows, columns = (
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip((height, width), self.kernel_size, self.stride, self.dilation, strict=True)
        )
        if self.kernel_size == (1, 1):
            patches = x[:, :, :: self.stride[0], :: self.stride[1]].flatten(2)
        else:
            patches = F.unfold(x, self.kernel_size, self.dilation, 0, self.stride)
        # (n, in·kh·kw, positions) -> (in·kh·kw, n·positions): one product for the whole batch.
        parts = patches.transpose(0, 1).reshape(patches.shape[1], -1)
        size = len(parts) // len(self.matrices)
        y = torch.cat([m.product(parts[i * size : (i + 1) * size]) for i, m in enumerate(self.matrices)])
        out = y.view(len(y), n, rows, columns).transpose(0, 1)
        return out.contiguous() if self.bias is None else out + self.bias.view(-1, 1, 1)


class MatrixExecutor(TorchExecutor):
    """Conv2d and Linear layers as products; the rest through torch, nn.MultiheadAttention's projections included."""

    def matrix(self, weight: Tensor) -> Matrix:
        """The library's matrix of a float32 weight (rows, columns)."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> nn.Module:
        if type(model) in _KINDS:
            return _KINDS[type(model)](model, self.matrix)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                # Exact types only: a subclass may have its own forward, or be read by its parent as plain weights.
                if type(child) in _KINDS:
                    setattr(parent, name, _KINDS[type(child)](child, self.matrix))
        return model

    def __call__(self, x: Tensor) -> Tensor:
        # A fused encoder layer would read weights that its linear layers no longer have.
        with unfused():
            return super().__call__(x)

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(m.nbytes for m in self.module.modules() if isinstance(m, _PRODUCTS))

    def summary(self) -> list[dict[str, object]]:
        """A row per layer that is a product: name, kind, shape, sparsity, kernel, bytes."""
        return [
            {
                "layer": name,
                "kind": type(m).__name__,
                "shape": m.shape,
                "sparsity": m.sparsity,
                "kernel": self.name,
                "bytes": m.nbytes,
            }
            for name, m in self.module.named_modules()
            if isinstance(m, _PRODUCTS)
        ]


_PRODUCTS = (MatrixLinear, MatrixConv2d)
_KINDS: dict[type, type] = {nn.Linear: MatrixLinear, nn.Conv2d: MatrixConv2d}
