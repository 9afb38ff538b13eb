"""jax: the dense model, replayed operator by operator in JAX and compiled by XLA for the CPU (extra `jax`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunebench import machine
from prunebench.backends.core_aten import Graph, captured
from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.backends.needs import missing
from prunebench.backends.replay import replay
from prunebench.errors import BackendUnavailable
from prunebench.registry import backend


@backend("jax")
class JaxExecutor(FixedBatchExecutor):
    """jax.jit on batch norms folded and channels last. XLA's threads are one pool per process, sized at its first use.

    Operators without a translation are refused by name: padding other than zeros, transposed convolutions, …
    """

    name = "jax"

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        device = own_pool(self.threads)
        import jax

        try:
            graph = captured(model, example)
            with jax.default_device(device):
                weights = self.weights(graph)
                # Weights are arguments: as constants of the program XLA would hold a second copy.
                compiled = jax.jit(lambda held, x: replay(graph, held, x, self.arrays()))
                graph.weights.clear()
                compiled(weights, jax.device_put(example.numpy(), device)).block_until_ready()
        except Exception as error:
            raise refused("JAX", error) from error
        self._bytes = sum(int(leaf.nbytes) for leaf in jax.tree_util.tree_leaves(weights))

        def run(x: Tensor) -> Tensor:
            y = compiled(weights, jax.dlpack.from_dlpack(x))
            return torch.from_dlpack(y.block_until_ready())

        return run

    def weights(self, graph: Graph) -> dict[str, Any]:
        """The graph's weights as JAX holds them."""
        import jax

        return {name: jax.device_put(weight) for name, weight in graph.weights.items()}

    def arrays(self) -> JaxArrays:
        """What the graph is replayed with."""
        return JaxArrays()

    @staticmethod
    def unavailable() -> str | None:
        return missing("jax")


def own_pool(threads: int) -> Any:
    """JAX's CPU, with `threads` threads if it is used here for the first time.

    BackendUnavailable: it runs in this process already with another number, which can't be changed.
    """
    import jax
    from jax._src import xla_bridge  # the only place that tells without starting it

    if not xla_bridge.backends_are_initialized():
        before = os.environ.get("PJRT_NPROC")
        os.environ["PJRT_NPROC"] = str(threads)
        # Else a call is handed to another thread and waited for, which is no gain where each answer is needed at once.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        try:
            jax.devices("cpu")
        finally:
            if before is None:
                del os.environ["PJRT_NPROC"]
            else:
                os.environ["PJRT_NPROC"] = before
        _POOL.append(threads)
    there = _POOL[0] if _POOL else int(os.environ.get("PJRT_NPROC") or os.environ.get("NPROC") or machine.cores())
    if there != threads:
        raise BackendUnavailable(
            f"JAX has one pool of threads per process, here of {there}, not {threads}; run it in a process of its own"
        )
    return jax.devices("cpu")[0]


_POOL: list[int] = []  # the number of threads that JAX was started with here


class JaxArrays:
    """The functions that captured calls are replayed with: jax.numpy and jax.lax on images with channels last."""

    def conv(self, x: Any, kernel: Any, strides: Any, pads: Any, dilation: Any, groups: int) -> Any:
        from jax import lax

        return lax.conv_general_dilated(
            x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip

    def dense(self, x: Any, weight: Any) -> Any:
        return x @ weight

    def max_pool(self, x: Any, window: Any, strides: Any) -> Any:
        from jax import lax

        return lax.reduce_window(x, float("-inf"), lax.max, (1, *window, 1), (1, *strides, 1), "VALID")

    def avg_pool(self, x: Any, window: Any, strides: Any) -> Any:
        from jax import lax

        total = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), "VALID")
        return total / (window[0] * window[1])

    def function(self, name: str, x: Any) -> Any:
        import jax

        found: Mapping[str, Callable[[Any], Any]] = {
            "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jax.numpy.tanh, "exp": jax.numpy.exp,
            "sqrt": jax.numpy.sqrt, "erf": jax.lax.erf,
        }  # fmt: skip
        return found[name](x)

    def softmax(self, x: Any, axis: int) -> Any:
        import jax

        return jax.nn.softmax(x, axis)

    def pad(self, x: Any, pads: Any, value: float) -> Any:
        import jax.numpy as jnp

        return jnp.pad(x, pads, constant_values=value)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return x.clip(low, high)

    def transpose(self, x: Any, order: Any) -> Any:
        return x.transpose(order)

    def reshape(self, x: Any, shape: Any) -> Any:
        return x.reshape(shape)

    def squeeze(self, x: Any, axes: Any) -> Any:
        return x.squeeze(axes)

    def mean(self, x: Any, axes: Any, keep: bool) -> Any:
        return x.mean(axes, keepdims=keep)

    def any(self, x: Any, axis: int, keep: bool) -> Any:
        return x.any(axis, keepdims=keep)

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def expand(self, x: Any, shape: Any) -> Any:
        import jax.numpy as jnp

        return jnp.broadcast_to(x, shape)

    def concat(self, xs: Any, axis: int) -> Any:
        import jax.numpy as jnp

        return jnp.concatenate(xs, axis)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        import jax.numpy as jnp

        return jnp.where(condition, a, b)

    def full_like(self, x: Any, value: float) -> Any:
        import jax.numpy as jnp

        return jnp.full_like(x, value)
