"""jax_bcsr: conv and linear layers as products of jax.experimental.sparse.BCSR, the rest as in the backend jax."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from prunebench.backends.core_aten import Graph
from prunebench.backends.jax import JaxArrays, JaxExecutor
from prunebench.registry import backend


@backend("jax_bcsr")
class JaxBcsrExecutor(JaxExecutor):
    """BCSR times the whole batch, convolutions through im2col; those in groups stay dense.

    jax.experimental.sparse is experimental, by name and by its documentation; on CPUs its product has one thread.
    """

    name = "jax_bcsr"

    def weights(self, graph: Graph) -> dict[str, Any]:
        import jax
        from jax.experimental import sparse

        products = {call.args[1].name for call in graph.calls if call.op == "linear" or _ungrouped(call)}
        held = {}
        for name, weight in graph.weights.items():
            if name in products:
                # (in, out), or a kernel (rows, columns, in, out): its rows are outputs, its columns taps.
                matrix = np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).T)
                held[name] = Product(sparse.BCSR.from_scipy_sparse(_csr(matrix)), weight.shape[:-1])
            else:
                held[name] = jax.device_put(weight)
        _register()
        return held

    def arrays(self) -> JaxArrays:
        return BcsrArrays()


class Product:
    """A weight as a BCSR matrix (out, in), and what its columns stand for: (in,) or (rows, columns, in)."""

    def __init__(self, matrix: Any, columns: tuple[int, ...]) -> None:
        self.matrix, self.columns = matrix, columns

    def times(self, dense: Any) -> Any:
        """This matrix times dense (in, n)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.matrix @ dense


class BcsrArrays(JaxArrays):
    """JaxArrays whose weights may be Products."""

    def dense(self, x: Any, weight: Any) -> Any:
        if not isinstance(weight, Product):
            return super().dense(x, weight)
        y = weight.times(x.reshape(-1, x.shape[-1]).T).T
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def conv(self, x: Any, kernel: Any, strides: Any, pads: Any, dilation: Any, groups: int) -> Any:
        if not isinstance(kernel, Product):
            return super().conv(x, kernel, strides, pads, dilation, groups)
        import jax.numpy as jnp

        rows, columns, _ = kernel.columns
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)]).transpose(3, 0, 1, 2)
        sizes = [
            (size - d * (taps - 1) - 1) // s + 1
            for size, taps, s, d in zip(x.shape[2:], (rows, columns), strides, dilation, strict=True)
        ]
        # (in, n, rows, columns) -> (taps·in, n·positions): a strided slice per tap.
        shifted = [
            x[:, :, i * dilation[0] :: strides[0], j * dilation[1] :: strides[1]][:, :, : sizes[0], : sizes[1]]
            for i in range(rows)
            for j in range(columns)
        ]
        y = kernel.times(jnp.concatenate(shifted).reshape(len(shifted) * x.shape[0], -1))
        return y.reshape(-1, x.shape[1], *sizes).transpose(1, 2, 3, 0)


def _ungrouped(call: Any) -> bool:
    return call.op == "conv2d" and (len(call.args) < 7 or call.args[6] == 1) and call.options.get("groups", 1) == 1


def _csr(matrix: np.ndarray) -> Any:
    import scipy.sparse

    found = scipy.sparse.csr_matrix(matrix)
    if not found.nnz:  # a product of nothing: XLA takes no empty array of values
        found = scipy.sparse.csr_matrix((np.zeros(1, np.float32), ([0], [0])), matrix.shape)
    return found


def _register() -> None:
    """Tell JAX that a Product holds arrays, once."""
    import jax

    if not _REGISTERED:
        jax.tree_util.register_pytree_node(Product, lambda p: ((p.matrix,), p.columns), lambda c, m: Product(m[0], c))
        _REGISTERED.append(True)


_REGISTERED: list[bool] = []
