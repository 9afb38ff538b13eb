"""scipy_csr: each conv and linear layer as one scipy.sparse CSR product over the whole batch (im2col for convs)."""

from __future__ import annotations

import scipy.sparse
import torch
from torch import Tensor

from prunebench.backends.unfolding import MatrixExecutor
from prunebench.registry import backend


class ScipyMatrix:
    """A weight (rows, columns) as scipy.sparse.csr_matrix."""

    def __init__(self, weight: Tensor) -> None:
        self.csr = scipy.sparse.csr_matrix(weight.numpy())
        self.nonzeros = int(self.csr.nnz)
        self.nbytes = self.csr.data.nbytes + self.csr.indices.nbytes + self.csr.indptr.nbytes

    def product(self, dense: Tensor) -> Tensor:
        """This matrix times dense (columns, n), float32."""
        return torch.from_numpy(self.csr @ dense.numpy())


@backend("scipy_csr")
class ScipyCsrExecutor(MatrixExecutor):
    """Conv2d and Linear layers through SciPy, which has one thread; the rest through torch."""

    name = "scipy_csr"

    def matrix(self, weight: Tensor) -> ScipyMatrix:
        return ScipyMatrix(weight)
