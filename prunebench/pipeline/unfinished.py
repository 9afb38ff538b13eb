"""A training that isn't finished, as one file beside the artifacts: a killed run goes on at its last kept epoch.

One safetensors file per artifact's key, replaced whole, its JSON values in the header, never pickle. It goes when the
artifact is published. Written only every so many seconds, so that short trainings pay nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.atomic import make_folder, write_bytes
from prunebench.errors import UsageError, reason
from prunebench.untrusted import parse_json, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
_MOST = 1 << 40
More = Callable[[], tuple[Mapping[str, "Tensor"], Mapping[str, Any]]]


class NewerState(UsageError):
    """A state of a newer format: hours of training that this version can't go on with, and won't throw away."""


class Unfinished:
    """The kept state of the training that makes `key`; `tensors` and `values` are None where there is none.

    folder: where such files lie; seconds: between two writes. What surrounds the loop (masks, rounds) is given to
    `keeper` as a function and comes back in `tensors` and `values` beside the loop's own state. Raises UnfitState
    where the file is damaged, or can't be read.
    """

    def __init__(self, folder: Path, key: str, seconds: float) -> None:
        self.path, self.seconds = path_of(folder, key), seconds
        self.tensors, self.values = _read(self.path)
        self._start = time.monotonic()
        if self.values is None:
            self.remove()  # what a write that was killed left

    @property
    def stage(self) -> int:
        """The stage that was under way: 0 at the start."""
        stage: int = 0 if self.values is None else self.values["stage"]
        return stage

    @property
    def elapsed(self) -> float:
        """Seconds spent on this artifact, those before a kill included."""
        before = 0.0 if self.values is None else float(self.values["seconds"])
        return before + time.monotonic() - self._start

    def more(self, prefix: str) -> dict[str, Tensor]:
        """The kept tensors whose names start with a prefix, without it."""
        return {n.removeprefix(prefix): t for n, t in (self.tensors or {}).items() if n.startswith(prefix)}

    def keeper(self, stage: int = 0, more: More | None = None) -> StageKeeper:
        """What `fit` keeps its state with, in the given stage of a training that runs it several times."""
        return StageKeeper(self, stage, more)

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the file; UsageError where it can't be written."""
        import safetensors.torch

        whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        told = {**values, "schema": SCHEMA, "seconds": self.elapsed, "digest": _digest(safetensors.torch.save(whole))}
        text = json.dumps(told, allow_nan=False)
        make_folder(self.path.parent)
        write_bytes(self.path, safetensors.torch.save(whole, {"values": text}))

    def remove(self) -> None:
        """Forget the state, and what killed writes left of it."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*")):
            with contextlib.suppress(OSError):
                path.unlink()


class StageKeeper:
    """A `prunebench.training.state.Keeper` on disk, for one stage."""

    def __init__(self, unfinished: Unfinished, stage: int, more: More | None) -> None:
        self.unfinished, self.stage, self._more = unfinished, stage, more
        self._written = time.monotonic()

    def read(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        u = self.unfinished
        return (u.more("fit."), u.values) if u.values is not None and u.stage == self.stage else None

    def due(self) -> bool:
        return time.monotonic() - self._written >= self.unfinished.seconds

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        around, told = self._more() if self._more else ({}, {})
        own = {f"fit.{name}": t for name, t in tensors.items()}
        self.unfinished.write({**own, **around}, {**told, **values, "stage": self.stage})
        self._written = time.monotonic()


def path_of(folder: Path, key: str) -> Path:
    """The file of the training that makes `key`."""
    return folder / f"{key}.safetensors"


def _read(path: Path) -> tuple[dict[str, Tensor] | None, dict[str, Any] | None]:
    import safetensors
    import safetensors.torch

    from prunebench.training.state import UnfitState

    try:
        content = read_bytes(path, _MOST)
        values = parse_json(parse_json(content[8 : _header(content)])["__metadata__"]["values"])
        if values["digest"] != _digest(content):
            raise ValueError("its digest differs")
        if values["schema"] > SCHEMA:
            raise NewerState(
                f"the unfinished training {path} was kept by a newer prunebench; finish it with that one, or remove it"
            )
        if values["schema"] != SCHEMA:
            raise ValueError(f"its schema is {values['schema']!r}")
        if type(values["stage"]) is not int or values["stage"] < 0:
            raise ValueError(f"its stage is {values['stage']!r}")
        if type(values["seconds"]) is not float or not 0 <= values["seconds"] < math.inf:
            raise ValueError(f"its seconds are {values['seconds']!r}")
        return safetensors.torch.load(content), values
    except NewerState:
        raise
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise UnfitState(reason(error)) from error


def _header(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _digest(content: bytes) -> str:
    # Of the tensors alone: the header holds this digest.
    return hashlib.sha256(content[_header(content) :]).hexdigest()
