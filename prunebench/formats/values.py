"""How the values of weights are stored: as they are, in fewer bits of floating point, or as int8 with a scale a row."""

from __future__ import annotations

import torch
from torch import Tensor

from prunebench.errors import UsageError

VALUES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}
WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # dtypes that are encoded at all
_GREATEST = 127  # symmetric: −128 is never used, so that −w is stored as well as w


def narrow(name: str, rows: Tensor, values: str | None) -> tuple[Tensor, Tensor | None]:
    """(what is stored, scales (rows, 1) float32 of int8 values) of a weight (rows, columns).

    Never wider than the weight is: a float16 weight stays so under "fp32" and "bf16". int8 is symmetric with a scale
    per output channel, w ≈ q·s with s = max|w| / 127 of its row (Jacob et al. 2018, per channel as in Krishnamoorthi
    2018). UsageError for a weight that the values can't hold: beyond their largest number, or not finite in int8.
    """
    if values is None or VALUES[values].itemsize >= rows.dtype.itemsize:
        return rows, None
    if values != "int8":
        stored = rows.to(VALUES[values])
        if not torch.equal(stored.isfinite(), rows.isfinite()):
            largest = torch.finfo(VALUES[values]).max
            raise UsageError(f"{name!r} holds {float(_largest(rows)):.3g}, beyond {values}'s {largest:.3g}; use bf16")
        return stored, None
    if not bool(rows.isfinite().all()):
        raise UsageError(f"{name!r} holds NaN or infinity, which int8 can't; use fp16 or bf16")
    scales = (rows.abs().amax(1, keepdim=True) / _GREATEST).float()
    if not bool(scales.isfinite().all()):
        raise UsageError(f"{name!r} holds {float(_largest(rows)):.3g}, beyond what a float32 scale takes; use fp32")
    # A row of zeros, or of numbers so small that their scale is none, is a row of zeros with any scale.
    scales = torch.where(scales > 0, scales, 1.0)
    quotients = rows.to(torch.promote_types(rows.dtype, torch.float32)) / scales
    return quotients.round().clamp(-_GREATEST, _GREATEST).to(torch.int8), scales


def check_scales(scales: Tensor, rows: int) -> None:
    """ValueError where the scales of `rows` rows are not finite numbers above 0."""
    if scales.dtype != torch.float32 or tuple(scales.shape) != (rows, 1):
        raise ValueError(f"the scales are {tuple(scales.shape)} {scales.dtype}, not ({rows}, 1) float32")
    if not bool((scales.isfinite() & (scales > 0)).all()):
        raise ValueError("a scale is not a finite number above 0")


def widen(stored: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The values in a weight's own dtype; scales: one for each value, or such that they broadcast."""
    return stored.to(dtype) if scales is None else (stored.float() * scales).to(dtype)


def _largest(rows: Tensor) -> Tensor:
    return rows[rows.isfinite()].abs().max()
