"""Running the real commands in subprocesses, as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TINY = ("--profile", "smoke", "--epochs", "1", "--fine-tune-epochs", "1")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with one OpenMP thread (busy machines), no proxy to the outside, and `changes`."""
    blocked = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **blocked, **changes}


def command(
    *arguments: str | Path, cwd: Path = ROOT, timeout: float = 300, **changes: str
) -> subprocess.CompletedProcess:
    """Run a command to its end; output as text."""
    return subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=timeout
    )


def grid_command(folder: Path, *arguments: str, python: str | Path = sys.executable) -> list[str]:
    """`pytest benchmarks` with store and saved runs under a folder."""
    places = ["--store", str(folder / "store"), f"--benchmark-storage=file://{folder}/results/runs"]
    return [str(python), "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", *places, *arguments]


def pytest_grid(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    """The same, run to its end."""
    return command(*grid_command(folder, *arguments), **changes)


def prunebench(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess:
    """The `prunebench` command of this environment."""
    return command(BIN / "prunebench", *arguments, **changes)


def killed_in_mid_run(command: list[str], folder: Path, lines: int) -> Path:
    """Starts a run of benchmarks, kills it once its journal has so many lines, and returns the journal."""
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    have = 0
    while have < lines and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.05)
        have = sum(len(f.read_text().splitlines()) for f in folder.rglob("*.partial.jsonl"))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    (journal,) = folder.rglob("*.partial.jsonl")
    return journal
