"""torch_csr: each conv and linear layer as a product of torch's sparse CSR tensor, MKL's where torch has it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from prunebench.backends.unfolding import MatrixExecutor
from prunebench.errors import BackendUnavailable, reason
from prunebench.registry import backend


class TorchMatrix:
    """A weight (rows, columns) as a torch.sparse_csr tensor."""

    def __init__(self, weight: Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its sparse CSR layout beta, once per process
            wide = weight.to_sparse_csr()
            # MKL takes indices of 4 bytes: wider ones are converted in every product.
            pointers, columns = wide.crow_indices().int(), wide.col_indices().int()
            self.csr = torch.sparse_csr_tensor(pointers, columns, wide.values(), wide.shape)
        self.nonzeros = int(wide.values().numel())
        self.nbytes = 8 * self.nonzeros + 4 * pointers.numel()

    def product(self, dense: Tensor) -> Tensor:
        """This matrix times dense (columns, n), float32."""
        return self.csr @ dense


@backend("torch_csr")
class TorchCsrExecutor(MatrixExecutor):
    """Conv2d and Linear layers through torch.sparse, on torch's threads; the rest through torch's dense kernels."""

    name = "torch_csr"

    def matrix(self, weight: Tensor) -> TorchMatrix:
        return TorchMatrix(weight)

    def prepare(self, model: nn.Module) -> nn.Module:
        try:
            TorchMatrix(torch.eye(2)).product(torch.ones(2, 1))
        except (RuntimeError, NotImplementedError) as error:  # a torch without MKL may have no such product
            raise BackendUnavailable(f"this torch has no product of a CSR tensor: {reason(error)[:200]}") from error
        return super().prepare(model)
