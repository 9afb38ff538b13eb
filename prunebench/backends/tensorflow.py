"""tensorflow: the dense model, replayed operator by operator as one tf.function on the CPU (extra `tensorflow`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunebench import machine
from prunebench.backends.core_aten import captured
from prunebench.backends.fixed_batch import FixedBatchExecutor, refused
from prunebench.backends.needs import missing
from prunebench.backends.replay import replay
from prunebench.errors import BackendUnavailable
from prunebench.registry import backend


@backend("tensorflow")
class TensorFlowExecutor(FixedBatchExecutor):
    """A concrete function with batch norms folded, channels last; jit_compile: through XLA.

    TensorFlow's threads are one pool per process, sized at its first use. Operators without a translation are refused
    by name: padding other than zeros, transposed convolutions, …
    """

    name = "tensorflow"

    def __init__(self, model: nn.Module, example_input: Tensor, threads: int = 1, jit_compile: bool = False) -> None:
        self.jit_compile = jit_compile
        super().__init__(model, example_input, threads)

    def build(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        tf = own_pool(self.threads)
        try:
            graph = captured(model, example)

            with tf.device("/CPU:0"):
                # Captured: as constants of the graph TensorFlow would hold them eight times over.
                held = {name: tf.constant(weight) for name, weight in graph.weights.items()}
                graph.weights.clear()

                def forward(x: Any) -> Any:
                    return replay(graph, held, x, TensorFlowArrays(tf))

                traced = tf.function(forward, jit_compile=self.jit_compile or None, autograph=False)
                concrete = traced.get_concrete_function(tf.TensorSpec(tuple(example.shape), tf.float32))
                concrete(tf.constant(example.numpy()))
        except Exception as error:
            raise refused("TensorFlow", error) from error
        self._bytes = sum(4 * int(tf.size(weight)) for weight in held.values())

        def run(x: Tensor) -> Tensor:
            return torch.from_numpy(concrete(tf.constant(x.numpy())).numpy())

        def run_beside_a_gpu(x: Tensor) -> Tensor:
            with tf.device("/CPU:0"):  # else the input would go there and back; it costs too much where there is none
                return run(x)

        return run_beside_a_gpu if tf.config.list_logical_devices("GPU") else run

    @staticmethod
    def unavailable() -> str | None:
        return missing("tensorflow")


def own_pool(threads: int) -> Any:
    """The tensorflow module, with `threads` threads if it is used here for the first time.

    BackendUnavailable: it runs in this process already with another number, which can't be changed, or was imported
    before torch's compiler.
    """
    triton = importlib.util.find_spec("triton") is not None
    if triton and "tensorflow" in sys.modules and "torch._dynamo" not in sys.modules:
        raise BackendUnavailable(
            "TensorFlow was imported before torch's compiler, which ends the process: both bring an LLVM; "
            "import torch._dynamo before tensorflow"
        )

    importlib.import_module("torch._dynamo")  # it loads Triton; after TensorFlow that aborts, before it does no harm

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else it tells of every instruction set and missing driver
    import tensorflow as tf

    settings = tf.config.threading
    try:
        settings.set_intra_op_parallelism_threads(threads)
        settings.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        there = settings.get_intra_op_parallelism_threads() or machine.cores()
        if there != threads:
            raise BackendUnavailable(
                f"TensorFlow has one pool of threads per process, here of {there}, not {threads}; "
                "run it in a process of its own"
            ) from error
    return tf


class TensorFlowArrays:
    """The functions that captured calls are replayed with: TensorFlow's own, on images with channels last."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf

    def conv(self, x: Any, kernel: Any, strides: Any, pads: Any, dilation: Any, groups: int) -> Any:
        nn, (rows, columns) = self.tf.nn, kernel.shape[:2]
        if groups == 1:
            return nn.conv2d(x, kernel, list(strides), [[0, 0], *map(list, pads), [0, 0]], dilations=list(dilation))
        if any(p != (0, 0) for p in pads):
            x = self.pad(x, [(0, 0), *pads, (0, 0)], 0.0)
        channels = x.shape[3]
        if groups == channels and (strides[0] == strides[1]) and (strides == (1, 1) or dilation == (1, 1)):
            kernel = self.tf.reshape(kernel, (rows, columns, channels, -1))
            return nn.depthwise_conv2d(x, kernel, [1, *strides, 1], "VALID", dilations=list(dilation))
        # TensorFlow's CPU kernels know no groups.
        parts = zip(self.tf.split(x, groups, 3), self.tf.split(kernel, groups, 3), strict=True)
        return self.tf.concat([nn.conv2d(a, k, list(strides), "VALID", dilations=list(dilation)) for a, k in parts], 3)

    def dense(self, x: Any, weight: Any) -> Any:
        return self.tf.matmul(x, weight)

    def max_pool(self, x: Any, window: Any, strides: Any) -> Any:
        return self.tf.nn.max_pool2d(x, list(window), list(strides), "VALID")

    def avg_pool(self, x: Any, window: Any, strides: Any) -> Any:
        return self.tf.nn.avg_pool2d(x, list(window), list(strides), "VALID")

    def function(self, name: str, x: Any) -> Any:
        math = self.tf.math
        found: Mapping[str, Callable[[Any], Any]] = {
            "relu": self.tf.nn.relu, "sigmoid": math.sigmoid, "tanh": math.tanh, "exp": math.exp, "sqrt": math.sqrt,
            "erf": math.erf,
        }  # fmt: skip
        return found[name](x)

    def softmax(self, x: Any, axis: int) -> Any:
        return self.tf.nn.softmax(x, axis)

    def pad(self, x: Any, pads: Any, value: float) -> Any:
        return self.tf.pad(x, pads, constant_values=value)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return self.tf.clip_by_value(x, low, high)

    def transpose(self, x: Any, order: Any) -> Any:
        return self.tf.transpose(x, order)

    def reshape(self, x: Any, shape: Any) -> Any:
        return self.tf.reshape(x, shape)

    def expand(self, x: Any, shape: Any) -> Any:
        return self.tf.broadcast_to(x, shape)

    def concat(self, xs: Any, axis: int) -> Any:
        return self.tf.concat(xs, axis)

    def mean(self, x: Any, axes: Any, keep: bool) -> Any:
        return self.tf.reduce_mean(x, axes, keep)

    def any(self, x: Any, axis: int, keep: bool) -> Any:
        return self.tf.reduce_any(x, axis, keep)

    def squeeze(self, x: Any, axes: Any) -> Any:
        return self.tf.squeeze(x, axes) if axes else x

    def matmul(self, a: Any, b: Any) -> Any:
        return self.tf.matmul(a, b)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.tf.where(condition, a, b)

    def full_like(self, x: Any, value: float) -> Any:
        return self.tf.fill(x.shape, self.tf.constant(value, x.dtype))
