"""Public kernels: `csr_matmul` and `isa`, handed on from the engine."""

from __future__ import annotations

from prunebench.engine.product import csr_matmul, isa

__all__ = ["csr_matmul", "isa"]
