"""CSR encoding: the nonzero values, their columns, and where each row begins, as SciPy's `csr_matrix` names them.

indptr (rows + 1,) int32, int64 from 2³¹ values on; indices in the narrowest of uint8, uint16 and int32 that holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunebench.formats import compiled
from prunebench.formats.compiled import Target, content

VALUES = "data"
PARTS = ("indptr", "indices", VALUES)
CHOICES: tuple[str, ...] = ()
_CHUNK = 1 << 22  # weights decoded at a time: bounds the memory besides; smaller ones take longer
_INDICES = (torch.uint8, torch.uint16, torch.int32)
_LIMITS = (2**8, 2**16, 2**31)


def encode(rows: Tensor) -> dict[str, Tensor]:
    """Parts of a matrix; indices increase within a row."""
    kept = rows != 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(1).numpy())])
    columns = np.flatnonzero(kept.numpy()) % rows.shape[1]
    return {
        "indptr": torch.from_numpy(starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)),
        "indices": torch.from_numpy(columns.astype(_narrowest(rows.shape[1]))),
        VALUES: rows[kept],
    }


def check(parts: Mapping[str, Tensor], rows: int, columns: int) -> None:
    """ValueError where the parts are not those of a matrix of this size."""
    starts, indices, count = parts["indptr"], parts["indices"], len(parts[VALUES])
    if starts.dtype not in (torch.int32, torch.int64) or tuple(starts.shape) != (rows + 1,):
        raise ValueError(f"indptr is {tuple(starts.shape)} {starts.dtype}, which does not fit {rows} rows")
    if indices.dtype not in _INDICES or tuple(indices.shape) != (count,):
        raise ValueError(f"indices are {tuple(indices.shape)} {indices.dtype}, but {count} values are stored")
    bounds = starts.numpy().astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != count or (bounds[1:] < bounds[:-1]).any():
        raise ValueError(f"indptr does not rise from 0 to the {count} values stored")
    if count == 0:
        return
    wrong = _wrong(indices, bounds, columns)
    if wrong == 1:
        raise ValueError(f"an index lies outside the {columns} columns")
    if wrong == 2:
        raise ValueError("indices do not increase within a row")


def spread(parts: Mapping[str, Tensor], target: Target) -> None:
    """Decode in C; ValueError where the file changed since it was checked."""
    starts = parts["indptr"].numpy().astype(np.int64)
    compiled.decode.spread_csr(starts, content(parts["indices"]), parts["indices"].element_size(), *target.words)


def positions(parts: Mapping[str, Tensor], rows: int, columns: int) -> Iterator[np.ndarray]:
    """Where the values stand in the flat matrix, some at a time: int64, increasing."""
    starts, indices = parts["indptr"].numpy(), parts["indices"].numpy()
    step = max(1, _CHUNK // max(1, columns))
    for first in range(0, rows, step):
        bounds = starts[first : first + step + 1]
        places = np.repeat(np.arange(first, first + len(bounds) - 1) * columns, np.diff(bounds))
        places += indices[bounds[0] : bounds[-1]]
        yield places


def _wrong(indices: Tensor, bounds: np.ndarray, columns: int) -> int:
    """0, or 1 where an index lies outside the columns, 2 where they don't increase within a row."""
    if compiled.decode is not None:
        return int(compiled.decode.check_indices(bounds, content(indices), indices.element_size(), columns))
    found = indices.numpy()
    if int(found.max()) >= columns or int(found.min()) < 0:
        return 1
    rising = found[1:] > found[:-1]
    rising[bounds[(bounds > 0) & (bounds < len(found))] - 1] = True  # a row may begin before where the last one ended
    return 0 if rising.all() else 2


def _narrowest(columns: int) -> np.dtype[Any]:
    found = zip((np.uint8, np.uint16, np.int32), _LIMITS, strict=True)
    return next(np.dtype(t) for t, limit in found if columns <= limit)
