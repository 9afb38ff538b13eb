"""How many bytes a checkpoint takes, tensor by tensor, and how few any lossless code of its weights could."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunebench.formats.checkpoint import Checkpoint
from prunebench.formats.container import NAMES
from prunebench.formats.entry import ENCODINGS
from prunebench.formats.values import WEIGHTS, narrow


def tensor_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """A row per tensor: name, shape, dtype, encoding, values, count, nonzeros, bytes, bits_per_nonzero (None for none).

    bytes: of all the tensor's parts, the file's header not among them. Nothing is decoded.
    """
    rows = []
    for name, entry in checkpoint.entries.items():
        parts = checkpoint.parts(name)
        values = parts[ENCODINGS[entry.encoding].VALUES if entry.encoding in ENCODINGS else ""]
        nonzeros, size = int(values.count_nonzero()), sum(part.nbytes for part in parts.values())
        rows.append(
            {
                "name": name,
                "shape": list(entry.shape),
                "dtype": NAMES[entry.dtype],
                "encoding": entry.encoding,
                "values": NAMES[entry.values],
                "count": entry.count,
                "nonzeros": nonzeros,
                "sparsity": 1 - nonzeros / entry.count if entry.count else None,
                "bytes": size,
                "bits_per_nonzero": 8 * size / nonzeros if nonzeros else None,
            }
        )
    return rows


def floor_bytes(state: Mapping[str, Tensor], values: str | None = None) -> int:
    """The entropy floor: bytes that no code gets below, on average, for random masks and values without structure.

    A weight tensor of n numbers with k nonzeros of b bits takes n·H(k/n) + k·b bits, H(p) = −p·log₂p − (1−p)·log₂(1−p)
    (Shannon 1948); int8 values 32 bits per row besides, for their scales; what is no weight takes its bytes. A mask
    with structure, rows of different density for example, can be told in less.
    """
    bits = 0.0
    for name, tensor in state.items():
        if tensor.dtype not in WEIGHTS or tensor.ndim < 2 or not tensor.numel():
            bits += 8 * tensor.nbytes
            continue
        stored, scales = narrow(name, tensor.detach().cpu().contiguous().flatten(1), values)
        nonzeros = int(stored.count_nonzero())
        bits += stored.numel() * entropy(nonzeros / stored.numel()) + 8 * nonzeros * stored.element_size()
        bits += 0 if scales is None else 8 * scales.nbytes
    return math.ceil(bits / 8)


def entropy(p: float) -> float:
    """Bits per outcome of a coin that shows one side with probability p."""
    return 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)
