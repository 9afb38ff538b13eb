"""scipy_csr: each conv and linear layer as one scipy.sparse CSR product over the whole batch (im2col for convs)."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.attention import unfused
from prunebench.backends.torch_modules import TorchExecutor
from prunebench.registry import backend


def _matrix(weight: Tensor) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(weight.detach().flatten(1).numpy())


def _bytes(matrices: list[scipy.sparse.csr_matrix]) -> int:
    return sum(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in matrices)


class SparseLinear(nn.Module):
    """y = (W xᵀ)ᵀ + b with W a CSR matrix (out, in): (…, in) -> (…, out)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.matrix, self.bias = _matrix(layer.weight), layer.bias
        self.shape, self.sparsity = tuple(layer.weight.shape), 1 - self.matrix.nnz / layer.weight.numel()

    @property
    def nbytes(self) -> int:
        return _bytes([self.matrix])

    def forward(self, x: Tensor) -> Tensor:
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).numpy().T)
        y = torch.from_numpy(self.matrix @ rows).t()
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.shape[0])


class SparseConv2d(nn.Module):
    """Convolution as W · im2col(x), one CSR matrix (out/groups, in/groups·kh·kw) per group, all images at once."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer_padding = layer._reversed_padding_repeated_twice
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.matrices = [_matrix(part) for part in layer.weight.chunk(layer.groups)]
        self.bias = layer.bias
        self.shape = tuple(layer.weight.shape)
        self.sparsity = 1 - sum(m.nnz for m in self.matrices) / layer.weight.numel()

    @property
    def nbytes(self) -> int:
        return _bytes(self.matrices)

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
        parts = patches.transpose(0, 1).reshape(patches.shape[1], -1).numpy()
        size = len(parts) // len(self.matrices)
        y = np.concatenate([m @ parts[i * size : (i + 1) * size] for i, m in enumerate(self.matrices)])
        out = torch.from_numpy(y).view(len(y), n, rows, columns).transpose(0, 1)
        return out.contiguous() if self.bias is None else out + self.bias.view(-1, 1, 1)


@backend("scipy_csr")
class ScipyCsrExecutor(TorchExecutor):
    """Conv2d and Linear layers through SciPy; the rest through torch, nn.MultiheadAttention's projections included."""

    name = "scipy_csr"

    def prepare(self, model: nn.Module) -> nn.Module:
        if type(model) in _KINDS:
            return _KINDS[type(model)](model)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                # Exact types only: a subclass may have its own forward, or be read by its parent as plain weights.
                if type(child) in _KINDS:
                    setattr(parent, name, _KINDS[type(child)](child))
        return model

    def __call__(self, x: Tensor) -> Tensor:
        # A fused encoder layer would read weights that its linear layers no longer have.
        with unfused():
            return super().__call__(x)

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(m.nbytes for m in self._sparse())

    def _sparse(self) -> list[SparseLinear | SparseConv2d]:
        return [m for m in self.module.modules() if isinstance(m, (SparseLinear, SparseConv2d))]

    def summary(self) -> list[dict[str, object]]:
        """A row per sparse layer: name, kind, shape, sparsity, kernel, bytes."""
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
            if isinstance(m, (SparseLinear, SparseConv2d))
        ]


_KINDS: dict[type, type] = {nn.Linear: SparseLinear, nn.Conv2d: SparseConv2d}
