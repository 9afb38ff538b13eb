"""The CSR encoding is SciPy's, in the narrowest integers that hold it."""

import numpy as np
import pytest
import torch
from scipy import sparse

from prunebench.formats import csr

pytestmark = pytest.mark.usefixtures("decoder")


@pytest.mark.parametrize(("columns", "dtype"), [(256, torch.uint8), (257, torch.uint16), (65537, torch.int32)])
def test_scipy_reads_it(columns, dtype):
    matrix = torch.zeros(5, columns)
    matrix[0, 3], matrix[0, columns - 1], matrix[3, 0], matrix[4, columns - 1] = 1, 2, 3, 4
    parts = csr.encode(matrix)
    assert parts["indices"].dtype == dtype
    assert parts["indptr"].dtype == torch.int32
    arrays = [parts[name].numpy() for name in ("data", "indices", "indptr")]
    read = sparse.csr_matrix((arrays[0], arrays[1].astype(np.int32), arrays[2]), shape=matrix.shape)
    assert np.array_equal(read.toarray(), matrix.numpy())
