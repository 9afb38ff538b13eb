"""Delta encoding: the distance from each nonzero to the one before it, in codes of 4, 8 or 16 bits (Han et al. 2016).

A code c > 0 is a nonzero c weights after the previous one, the first counted from position −1; 0 goes on by the
greatest code (15, 255, 65535) without a value. Codes of 4 bits lie two in a byte, the first in the lower half. Of the
three widths a tensor takes the one with the fewest bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from prunebench.formats import compiled
from prunebench.formats.compiled import Target, content

VALUES = "values"
PARTS = (VALUES,)
_WIDTHS = {"steps4": 4, "steps8": 8, "steps16": 16}
CHOICES = tuple(_WIDTHS)  # one of these is there, by its width
_CHUNK = 1 << 19  # codes decoded at a time: bounds the memory besides; smaller ones take longer


def encode(rows: Tensor) -> dict[str, Tensor]:
    """Parts of a matrix, read row after row."""
    kept = (rows != 0).reshape(-1)
    steps = np.diff(np.flatnonzero(kept.numpy()), prepend=-1)
    bits = {name: width * (len(steps) + int(_escapes(steps, width).sum())) for name, width in _WIDTHS.items()}
    name = min(bits, key=lambda n: (bits[n] + 7) // 8)
    width = _WIDTHS[name]
    escapes = _escapes(steps, width)
    codes = np.zeros(bits[name] // width, np.uint16 if width == 16 else np.uint8)
    codes[np.arange(len(steps)) + np.cumsum(escapes)] = steps - escapes * (2**width - 1)
    return {name: torch.from_numpy(_paired(codes) if width == 4 else codes), VALUES: rows.reshape(-1)[kept]}


def check(parts: Mapping[str, Tensor], rows: int, columns: int) -> None:
    """ValueError where the parts are not those of a matrix of this size."""
    found = [name for name in _WIDTHS if name in parts]
    if len(found) != 1:
        raise ValueError(f"one of {', '.join(_WIDTHS)} is wanted, not {len(found)}")
    steps = parts[found[0]]
    if steps.ndim != 1 or steps.dtype != (torch.uint16 if found[0] == "steps16" else torch.uint8):
        raise ValueError(f"{found[0]} are {tuple(steps.shape)} {steps.dtype}")
    width = _WIDTHS[found[0]]
    length, last = _length(steps, width)
    if last == 0:
        raise ValueError("the steps end without a value")
    count, sum_ = _summed(parts, steps, width)
    if count != len(parts[VALUES]):
        raise ValueError(f"the steps lead to {count} values, but {len(parts[VALUES])} are stored")
    end = sum_ + (2**width - 1) * (length - count)
    if end > rows * columns:
        raise ValueError(f"the steps lead to weight {end} of {rows * columns}")


def spread(parts: Mapping[str, Tensor], target: Target) -> None:
    """Decode in C; ValueError where the file changed since it was checked."""
    ((name, width),) = [(name, width) for name, width in _WIDTHS.items() if name in parts]
    compiled.decode.spread_delta(content(parts[name]), width, *target.words)


def positions(parts: Mapping[str, Tensor], rows: int, columns: int) -> Iterator[np.ndarray]:
    """Where the values stand in the flat matrix, some at a time: int64, increasing."""
    codes, greatest = _codes(parts)
    last, escapes = -1, len(codes) > len(parts[VALUES])
    for first in range(0, len(codes), _CHUNK):
        some = codes[first : first + _CHUNK]
        ends = some != 0
        advances = some + ~ends * np.array(greatest, some.dtype) if escapes else some
        places = np.cumsum(advances, dtype=np.int64)
        places += last
        last = int(places[-1])
        # Taken by number: by flags numpy is three times as slow.
        yield places.take(np.flatnonzero(ends)) if escapes else places


def _length(steps: Tensor, width: int) -> tuple[int, int | None]:
    """(codes, the last of them); an odd number of half bytes leaves the last half byte empty."""
    if not len(steps):
        return 0, None
    final = int(steps[-1])
    if width != 4:
        return len(steps), final
    return (2 * len(steps), final >> 4) if final >> 4 else (2 * len(steps) - 1, final & 15)


def _summed(parts: Mapping[str, Tensor], steps: Tensor, width: int) -> tuple[int, int]:
    """(codes that are not 0, their sum)."""
    if compiled.decode is not None:
        found: tuple[int, int] = compiled.decode.check_codes(content(steps), width)
        return found
    codes, _ = _codes(parts)
    return int(np.count_nonzero(codes)), int(codes.sum(dtype=np.int64))


def _escapes(steps: np.ndarray, width: int) -> np.ndarray:
    """Codes without a value before each step."""
    return (steps - 1) // (2**width - 1)


def _codes(parts: Mapping[str, Tensor]) -> tuple[np.ndarray, int]:
    """(codes, the greatest that their width can say)."""
    ((name, width),) = [(name, width) for name, width in _WIDTHS.items() if name in parts]
    codes = parts[name].numpy()
    if width != 4:
        return codes, 2**width - 1
    halves = np.empty(2 * len(codes), np.uint8)
    np.bitwise_and(codes, 15, out=halves[0::2])
    np.right_shift(codes, 4, out=halves[1::2])
    # An odd number of codes leaves the last half byte empty.
    return halves[: -1 if len(halves) and halves[-1] == 0 else None], 15


def _paired(codes: np.ndarray) -> np.ndarray:
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    return codes[0::2] | codes[1::2] << 4
