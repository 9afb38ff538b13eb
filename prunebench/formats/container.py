"""The file around the tensors: safetensors with text metadata, written by the library and read without copying."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from prunebench.untrusted import parse_json

# safetensors' names of the dtypes; a name that is none of them is refused on reading.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # the library's own bound


def write(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Contiguous CPU tensors that share no memory, as one safetensors file."""
    content = safetensors.torch.save(dict(tensors), dict(metadata))
    # The library writes the metadata in random order: sorted, equal states give equal bytes.
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def mapped(path: str | os.PathLike[str]) -> mmap.mmap:
    """A file's content as private memory, read where it is touched; OSError, or ValueError for an empty one."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def views(content: bytearray | mmap.mmap) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, metadata) of a file's content, the tensors lying in it; ValueError where it is not one.

    Not the library's reader, which copies every tensor of bytes, and takes longer over a file of many small parts
    than decoding them does.
    """
    if len(content) < 8:
        raise ValueError(f"{len(content)} bytes are no safetensors file")
    length = int.from_bytes(content[:8], "little")
    start = 8 + length
    if length > MAX_HEADER or start > len(content):
        raise ValueError(f"a header of {length} bytes does not fit a file of {len(content)}")
    header = parse_json(bytes(content[8:start]), unique=True)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is no table")
    tensors, spans = {}, []
    for name, stored in header.items():
        begin, end = stored["data_offsets"]
        tensors[name] = _view(name, content, stored["dtype"], stored["shape"], start, begin, end)
        spans.append((begin, end))
    # Every byte belongs to one tensor: nothing hidden between them, nothing there twice.
    edge = 0
    for begin, end in sorted(spans):
        if begin != edge:
            raise ValueError(f"the tensors leave a hole or overlap at byte {begin}")
        edge = end
    if start + edge != len(content):
        raise ValueError(f"the tensors end at byte {start + edge} of {len(content)}")
    return tensors, metadata


def _view(name: str, content: Any, dtype: str, shape: list[int], start: int, begin: int, end: int) -> Tensor:
    if dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} has dtype {dtype}; known: {', '.join(DTYPES)}")
    if not all(type(n) is int and 0 <= n < 2**63 for n in [*shape, begin, end]):
        raise ValueError(f"tensor {name!r} can't have shape {shape} and lie at {begin}")
    kind, count = DTYPES[dtype], math.prod(shape)
    if end - begin != count * kind.itemsize or start + end > len(content):
        raise ValueError(f"tensor {name!r} of shape {shape} does not fit its {end - begin} bytes")
    if not count:
        return torch.empty(shape, dtype=kind)
    offset = start + begin
    if offset % kind.itemsize:  # another writer's file: kernels want their operands aligned
        return torch.frombuffer(bytearray(content[offset : start + end]), dtype=kind).view(shape)
    flat = torch.frombuffer(content, dtype=kind, count=count, offset=offset)
    return flat if len(shape) == 1 else flat.view(shape)
