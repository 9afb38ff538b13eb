"""Mutations that keep a file's form: of any JSON value, and of a safetensors file by its header, its bytes, or both.

They know nothing of what the values mean, so they serve every encoding that keeps its facts in the header, nested JSON
texts included, and its numbers in tensors.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

NUMBERS = (
    0, 1, 2, 3, 7, 8, 9, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**63,
    2**64, 10**400, -1, -2, -(2**31), -(2**63), -(2**63) - 1, 0.5, -0.0, 1e-45, 1e308,
    float("inf"), -float("inf"), float("nan"),
)  # fmt: skip
WORDS = (
    "", " ", "\x00", "\n", "\x1b[31m", "../../x", "/etc/passwd", "\ud800", "é\u202e", "weight", "__metadata__", "null",
    "F32", "F64", "F16", "BF16", "I8", "U8", "I32", "I64", "U64", "BOOL", "F8_E4M3", "C64", "=1+1", "|", "<b>",
    "csr", "ok", "failed", "none", "l1", "like:criterion=l1:scope=global", "lp:p=3", "lp:p=", "1e999", "nan", "a" * 300,
)  # fmt: skip
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U8": 1, "I8": 1,
    "BOOL": 1,
}  # fmt: skip
KINDS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, "x", 1, 1.5)


def places(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """(holder, key) of every value in a JSON value."""
    found = [] if found is None else found
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found.append((value, key))
        places(inner, found)
    return found


def mutated(value: Any, chance: random.Random, times: int = 1) -> Any:
    """A copy of a JSON value (an object or array) with some of its places changed."""
    value = copy.deepcopy(value)
    for _ in range(times):
        known = places(value)
        if not known:
            return value
        holder, key = chance.choice(known)
        _change(holder, key, known, chance)
    return value


def _change(holder: Any, key: Any, known: list[tuple[Any, Any]], chance: random.Random) -> None:
    old = holder[key]
    how = chance.randrange(8)
    if how == 0 and isinstance(holder, dict):
        del holder[key]
    elif how == 1:
        holder[key] = copy.deepcopy(chance.choice(KINDS))  # else a later change to it is one of KINDS
    elif how == 2:
        other, place = chance.choice(known)
        holder[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else old)
    elif how == 3 and isinstance(holder, dict):
        holder[chance.choice(WORDS)] = holder.pop(key)
    elif how == 4 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(old)] * chance.choice((1, 2, 300))
    elif isinstance(old, str):
        holder[key] = _text(old, chance)
    elif isinstance(old, (int, float)) and not isinstance(old, bool):
        holder[key] = chance.choice([old + 1, old - 1, 2 * old, -old, *NUMBERS]) if abs(old) < 1e300 else 0
    else:
        holder[key] = chance.choice((*NUMBERS, *WORDS))


def _text(old: str, chance: random.Random) -> str:
    try:
        inner = json.loads(old)
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.8:
            return json.dumps(mutated(inner, chance))
    except (ValueError, RecursionError):
        pass
    if chance.random() < 0.05:
        return "[" * 100_000
    at = chance.randint(0, len(old))
    return chance.choice((chance.choice(WORDS), old[:at] + chance.choice(WORDS) + old[at:], old[:at] + old[at + 1 :]))


def joined(header: Any, body: bytes) -> bytes:
    """A safetensors file of a header and the bytes behind it."""
    text = (json.dumps(header) if not isinstance(header, bytes) else header.decode()).encode(errors="replace")
    return struct.pack("<Q", len(text)) + text + body


def parted(content: bytes) -> tuple[Any, bytes]:
    """(header, body) of a safetensors file; ValueError where it is none."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, content[8 + length :]


def checkpoint(content: bytes, chance: random.Random, most: int = 1 << 16) -> bytes:
    """A checkpoint changed: most often so that the container stays valid and what is in it contradicts itself."""
    try:
        header, body = parted(content)
    except ValueError:
        return _bytes(content, chance)[:most]
    how = chance.randrange(10)
    try:
        if how < 3:
            header = mutated(header, chance, chance.randint(1, 3))
        elif how < 7:
            body = _values(header, body, chance)
        elif how < 9:
            header, body = _resized(header, body, chance)
        else:
            return _bytes(content, chance)[:most]
        return joined(header, body)[:most]
    except (RecursionError, ValueError):  # json reads deeper nesting, and longer numbers, than Python walks and writes
        return _bytes(content, chance)[:most]


def _values(header: Any, body: bytes, chance: random.Random) -> bytes:
    """Numbers in the tensors replaced by boundary values, whole words at their places."""
    changed = bytearray(body)
    tensors = [t for name, t in header.items() if name != "__metadata__" and isinstance(t, dict)]
    for _ in range(chance.randint(1, 4)):
        try:
            start, end = chance.choice(tensors)["data_offsets"]
            size = chance.choice((1, 2, 4, 8))
            at = start + size * chance.randrange(max(1, (end - start) // size))
            number = chance.choice([n for n in NUMBERS if isinstance(n, int)]) + chance.randint(-2, 2)
            changed[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
        except (IndexError, KeyError, TypeError, ValueError):
            continue
    return bytes(changed[: len(body)])


def _resized(header: Any, body: bytes, chance: random.Random) -> tuple[Any, bytes]:
    """One tensor given another length, shape or type, the others moved up, so that the file still adds up."""
    header = copy.deepcopy(header)
    names = [n for n in header if n != "__metadata__"]
    pieces = {}
    try:
        for name in names:
            start, end = header[name]["data_offsets"]
            pieces[name] = body[start:end]
        victim = header[chance.choice(names)]
        name = next(n for n in names if header[n] is victim)
        kind = chance.choice([victim["dtype"], *SIZES])
        shape = [max(0, n + chance.choice((-1, 0, 0, 1, 2))) for n in victim["shape"]]
        if chance.random() < 0.3:
            shape = chance.choice(([], [0], [1], [*shape, 1], [*shape, 0], [2**40, 0], shape[1:], shape[::-1]))
        length = SIZES[kind]
        for n in shape:
            length *= n
        if length > 1 << 16:
            return header, body
        pieces[name] = (pieces[name] + bytes(length))[:length]
        victim["dtype"], victim["shape"] = kind, shape
        at = 0
        for name in sorted(names, key=lambda n: header[n]["data_offsets"][0]):
            header[name]["data_offsets"] = [at, at + len(pieces[name])]
            at += len(pieces[name])
        ordered = sorted(names, key=lambda n: header[n]["data_offsets"])
        return header, b"".join(pieces[n] for n in ordered)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return header, body


def saved_run(content: bytes, chance: random.Random, most: int = 1 << 17) -> bytes:
    """A saved run changed in some of its places."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, chance)[:most]
    if not isinstance(value, (dict, list)) or chance.random() < 0.03:
        return _bytes(content, chance)[:most]
    try:
        return json.dumps(mutated(value, chance, chance.randint(1, 3))).encode()[:most]
    except (RecursionError, ValueError):  # json reads deeper nesting, and longer numbers, than Python walks and writes
        return _bytes(content, chance)[:most]


def _bytes(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\x00")
    at = chance.randrange(len(changed))
    how = chance.randrange(4)
    if how == 0:
        changed[at] ^= 1 << chance.randrange(8)
    elif how == 1:
        del changed[at : at + chance.choice((1, 8, 100))]
    elif how == 2:
        changed[at:at] = chance.choice((b"\x00" * 8, b"\xff" * 8, b"[" * 5000, b"{}", b'"'))
    else:
        changed = changed[:at]
    return bytes(changed)
