"""A checkpoint read but not decoded: every part checked against the others before any memory is taken for a tensor."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunebench import machine
from prunebench.errors import UsageError
from prunebench.formats import container, version1, version2
from prunebench.formats.compiled import Target
from prunebench.formats.entry import ENCODINGS, SCALE, Entry
from prunebench.formats.values import check_scales, widen
from prunebench.untrusted import parse_json, plain_line

VERSIONS = {1: version1, 2: version2}
# What malformed headers, metadata and parts raise; all become one UsageError.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError, OverflowError)
_TORCH = (b"PK\x03\x04", b"\x80\x02")  # torch.save's files begin so: a zip archive, or of old a bare pickle


class Checkpoint:
    """The tensors of a file, or of its content, by name: `entries` says how each is stored, `into` decodes one.

    A file is mapped, so that what is decoded is read once. schema: None for a safetensors file of somebody else, whose
    tensors are taken as they are. UsageError for what is no safetensors or is damaged; after that nothing can go wrong.
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        content: Any = b""
        try:
            content = bytearray(source) if isinstance(source, bytes) else container.mapped(source)
            self._stored, metadata = container.views(content)
            about = parse_json(metadata["prunebench"], unique=True) if "prunebench" in metadata else {}
            self.schema = about.get("schema")
            self.entries = self._entries(about)
            self._parts = {name: self._find(name, entry) for name, entry in self.entries.items()}
            self._check()
        except _DAMAGE as error:
            if isinstance(error, ValueError) and content[:4].startswith(_TORCH):
                raise UsageError(
                    "no safetensors file but looks like torch.save's; `prunebench unpack IN OUT` rewrites one of a "
                    "state dict, torch.load reads any that you trust"
                ) from error
            words = textwrap.shorten(plain_line(error), 300)  # it may quote the file
            raise UsageError(f"not a readable safetensors checkpoint: {words or type(error).__name__}") from error

    def parts(self, name: str) -> dict[str, Tensor]:
        """What is stored of a tensor: its encoding's parts, or "" for a dense one, and its scales."""
        return self._parts[name]

    def tensor(self, name: str) -> Tensor:
        """A tensor decoded into memory of its own."""
        entry = self.entries[name]
        out = torch.empty(entry.shape, dtype=entry.dtype)
        self.into(name, out)
        return out

    def into(self, name: str, out: Tensor) -> None:
        """A tensor decoded into another one of its shape that needs no gradient, of any dtype, layout and device."""
        entry, parts = self.entries[name], self.parts(name)
        if entry.encoding == "dense":
            scales = parts[SCALE].view(-1, *[1] * (len(entry.shape) - 1)) if entry.scaled else None
            out.copy_(widen(parts[""], scales, entry.dtype))
        elif out.device.type != "cpu" or not out.is_contiguous():
            out.copy_(self.tensor(name))
        elif entry.scaled and out.dtype != torch.float32:
            out.copy_(_spread(entry, parts, torch.empty(entry.shape)).to(entry.dtype))
        else:
            _spread(entry, parts, out)

    def _entries(self, about: Mapping[str, Any]) -> dict[str, Entry]:
        if self.schema is None:
            encoded = {}
        elif self.schema not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise ValueError(f"it is of schema {self.schema}, this version reads {known}; update prunebench")
        else:
            encoded = VERSIONS[self.schema].entries(about, self._stored)
        taken: set[str] = set()
        for name, entry in encoded.items():
            own = set(self._names(name, entry).values())
            if taken & own:
                raise ValueError(f"tensor {name!r} shares a part with another one")
            taken |= own
        plain = {
            name: Entry(tuple(t.shape), t.dtype, "dense", t.dtype, stem=name)
            for name, t in self._stored.items()
            if name not in taken
        }
        if plain.keys() & encoded.keys():
            raise ValueError(f"tensor {sorted(plain.keys() & encoded.keys())[0]!r} is stored twice")
        return {**encoded, **plain}

    def _names(self, name: str, entry: Entry) -> dict[str, str]:
        """{part: its name in the file}."""
        if entry.encoding == "dense":
            names = {"": name}
        else:
            encoding = ENCODINGS[entry.encoding]
            names = {part: f"{entry.stem}.{part}" for part in encoding.PARTS}
            names |= {p: f"{entry.stem}.{p}" for p in encoding.CHOICES if f"{entry.stem}.{p}" in self._stored}
        return names | ({SCALE: f"{entry.stem}.{SCALE}"} if entry.scaled else {})

    def _find(self, name: str, entry: Entry) -> dict[str, Tensor]:
        names = self._names(name, entry)
        missing = [n for n in names.values() if n not in self._stored]
        if missing:
            raise ValueError(f"tensor {name!r} lacks its part {missing[0]!r}")
        return {part: self._stored[n] for part, n in names.items()}

    def _check(self) -> None:
        wanted, have = sum(e.count * e.dtype.itemsize for e in self.entries.values()), machine.memory_bytes()
        if have is not None and wanted > have:
            raise ValueError(f"it declares {wanted:.3g} bytes of weights, and this machine has {have:.3g}")
        for name, entry in self.entries.items():
            try:
                _check_tensor(entry, self.parts(name))
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from error


def _check_tensor(entry: Entry, parts: Mapping[str, Tensor]) -> None:
    if entry.scaled:
        check_scales(parts[SCALE], entry.rows)
    if entry.encoding == "dense":
        if tuple(parts[""].shape) != entry.shape or parts[""].dtype != entry.values:
            raise ValueError(f"it is {tuple(parts[''].shape)} {parts[''].dtype}, not {entry.shape} {entry.values}")
        return
    encoding = ENCODINGS[entry.encoding]
    values = parts[encoding.VALUES]
    if values.ndim != 1 or values.dtype != entry.values:
        raise ValueError(f"the values are {tuple(values.shape)} {values.dtype}, not flat {entry.values}")
    encoding.check(parts, entry.rows, entry.columns)


def _spread(entry: Entry, parts: Mapping[str, Tensor], out: Tensor) -> Tensor:
    """An encoded tensor decoded into a contiguous one on the CPU, float32 where it has scales."""
    encoding = ENCODINGS[entry.encoding]
    values = parts[encoding.VALUES].to(entry.dtype).to(out.dtype)
    target = Target(values, parts[SCALE] if entry.scaled else None, out, entry.rows, entry.columns)
    if target.fits:
        try:
            encoding.spread(parts, target)
        except ValueError as error:
            raise UsageError(f"not a readable safetensors checkpoint: {error}") from error
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)  # torch, and compiled engines, see that it changed
        return out
    flat = out.zero_().view(-1)
    done = 0
    for places in encoding.positions(parts, entry.rows, entry.columns):
        flat.scatter_(0, torch.from_numpy(places), values[done : done + len(places)])
        done += len(places)
    return out.view(entry.rows, entry.columns).mul_(parts[SCALE]).view(entry.shape) if entry.scaled else out
