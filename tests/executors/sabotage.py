"""A criterion that misbehaves on request, in whichever process asks for scores; what it did lies in a folder.

Installed for a test by `installed`: a package of its own on the path, because workers know no file-local plugins.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import prunebench as pb


@pb.criterion("sabotage")
def sabotage(layer, how: str = "well", tag: str = ""):
    """l1, after doing what `how` says: well, raises, dies, dies_once, or waits until the folder holds `go`."""
    folder = Path(os.environ["SABOTAGE"])
    (folder / f"{how}{tag}-{os.getpid()}-{uuid.uuid4().hex}").touch()
    if how == "raises":
        raise ValueError("as asked for")
    if how == "dies" or (how == "dies_once" and len(calls(folder, how, tag)) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "waits":
        until = time.monotonic() + 900
        while not (folder / "go").exists() and time.monotonic() < until:
            time.sleep(0.05)
    return layer.weight.abs()


def calls(folder: Path, how: str, tag: str = "") -> list[str]:
    """The calls so far: one file each, with the process in its name."""
    return sorted(file.name for file in Path(folder).glob(f"{how}{tag}-*"))


def install(folder: Path) -> None:
    """Put the criterion into a folder as an installed package has it."""
    (folder / "sabotage.py").write_text(Path(__file__).read_text())
    info = folder / "sabotage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sabotage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[prunebench.criteria]\nsabotage = sabotage:sabotage\n")
