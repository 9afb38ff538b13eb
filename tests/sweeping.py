"""Several `prunebench sweep` on one store at once, forked from a process that has imported torch already.

`python sweeping.py FOLDER PROCESSES:KILLS…` writes FOLDER/report.json: for each, what the processes said.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from crashing import exit_code, forked, prepare

GRID = ["--profile", "smoke", "--datasets", "digits:size=8", "--criteria", "l1,random", "--sparsities", "0.5,0.9",
        "--seeds", "0,1", "--epochs", "2", "--fine-tune-epochs", "2"]  # fmt: skip
CELLS = 10


def sweep(folder: Path) -> int:
    from prunebench import cli

    return cli.main(["sweep", "--store", str(folder / "store"), *GRID])


def told(output: Path) -> dict[str, Any]:
    text = output.read_text()
    counts = re.search(r"(\d+) cells: (\d+) trained, (\d+) from the store, (\d+) failed", text)
    return {"text": text, "counts": [int(n) for n in counts.groups()] if counts else None}


def together(folder: Path, processes: int, kills: int, draw: random.Random) -> dict[str, Any]:
    """So many sweeps at once, of which the first few are killed; what they said and what they left."""
    from prunebench.store import Store
    from prunebench.store.upkeep import clean, verify

    folder.mkdir()
    outputs = [folder / f"{n}.txt" for n in range(processes)]
    children = [forked(lambda: sweep(folder), output) for output in outputs]
    for child in children[:kills]:
        time.sleep(draw.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
    codes = [exit_code(child) for child in children]
    store = Store(folder / "store")
    return {
        "processes": [{"code": code, **told(output)} for code, output in zip(codes, outputs, strict=True)],
        "stored": len(list(store.keys())),
        "damaged": [key for key, trouble in verify(store) if trouble],
        "leftovers": [one.why for one in clean(store)],
        "left": len([f for f in store.root.rglob("*") if f.is_file()]),
    }


def main(folder: Path, asked: list[str]) -> None:
    prepare()
    draw = random.Random(0)
    numbers = [tuple(map(int, text.split(":"))) for text in asked]
    found = [together(folder / str(n), *pair, draw) for n, pair in enumerate(numbers)]
    (folder / "report.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
