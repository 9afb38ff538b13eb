"""What a reader may do with any bytes: give values that hold together, or say in one plain line why not."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from pathlib import Path

import torch
from mutating import checkpoint, saved_run

import prunebench as pb
from prunebench import formats
from prunebench.claims import judge
from prunebench.claims.files import claims_markdown
from prunebench.errors import UsageError
from prunebench.report import page
from prunebench.runs import read_run
from prunebench.tables.files import kinds_of
from prunebench.tables.rendering import FORMATS, render
from prunebench.untrusted import is_plain

MOST_BYTES = 1 << 32  # of tensors from an input of at most 64 KiB: an all-zero layer is large and its file is not
MOST_SECONDS = 10.0
CORPUS = Path(__file__).resolve().parent.parent / "corpus"
FOLDER = Path(tempfile.mkdtemp(prefix="prunebench-fuzz-"))


class Net(torch.nn.Module):
    """What the seeds are checkpoints of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(16, 10)


STATE = {name: torch.ones_like(tensor) for name, tensor in Net().state_dict().items()}


def check_checkpoint(content: bytes) -> None:
    """pb.load of these bytes, alone and into a model."""
    path = FOLDER / "input.safetensors"
    path.write_bytes(content)
    started = time.monotonic()
    with _refusal():
        state = pb.load(path)
        sizes = []
        for name, tensor in state.items():
            assert isinstance(name, str)
            assert type(tensor) is torch.Tensor
            assert tensor.layout == torch.strided
            sizes.append(tensor.nbytes)
            if 0 < tensor.nbytes < 1 << 20 and tensor.dtype != torch.bool:
                _touch(tensor)
        assert sum(sizes) <= MOST_BYTES, f"{len(content)} bytes make {sum(sizes):,}"
    model = Net()
    model.load_state_dict(STATE)
    try:
        pb.load(path, model)
    except UsageError:
        after = model.state_dict()
        assert all(torch.equal(STATE[name], after[name]) for name in STATE), "a refused checkpoint changed the model"
    assert time.monotonic() - started < MOST_SECONDS


def check_saved_run(content: bytes) -> None:
    """A saved run read, and every table and the page made of it."""
    path = FOLDER / "0001_input.json"
    path.write_bytes(content)
    started = time.monotonic()
    with _refusal():
        run = read_run(path)
        assert math.isfinite(len(run.facts))
        if run.cases:
            for tables in kinds_of([run]).values():
                for (machine, threads), table in tables.items():
                    assert f"{machine}{threads}".isalnum()
                    for format in FORMATS:
                        _check_text(render(table, format), len(table), format)
            claims_markdown(judge([run])).encode()
            page([run]).encode(errors="replace")
    assert time.monotonic() - started < MOST_SECONDS


def _check_text(text: str, rows: int, format: str) -> None:
    if format == "github":
        lines = text.splitlines()
        assert len(lines) == rows + 2, "a cell broke its row"
        assert len({line.count("|") for line in lines}) == 1, "a cell broke its column"
    assert is_plain(text.replace("\n", "")), "a control character came through"
    text.encode()


def _touch(tensor: torch.Tensor) -> None:
    with contextlib.suppress(RuntimeError, NotImplementedError):  # float8 and uint16 know little arithmetic
        (tensor == tensor).sum().item()


@contextlib.contextmanager
def _refusal():
    """A UsageError in one plain line is an answer; any other exception is a finding."""
    try:
        yield
    except UsageError as error:
        said = str(error)
        assert is_plain(said), "a control character came through"
        assert len(said) < 3000, f"a message of {len(said)} characters"


def seeds(target: str) -> list[bytes]:
    """The inputs that a target starts from: its corpus and, so that a new encoding is met at once, one of each."""
    found = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    if target == "checkpoint":
        state = {name: tensor.clone() for name, tensor in STATE.items()}
        state["fc.weight"][1:] = 0
        for format in formats.FORMATS:
            path = FOLDER / "seed.safetensors"
            pb.save(state, path, format=format)
            found.append(path.read_bytes())
    return found


TARGETS = {"checkpoint": (check_checkpoint, checkpoint), "saved_run": (check_saved_run, saved_run)}
