"""A callable built and timed in a process of its own, so that the threads of one runtime never hold another's core.

Parent and worker talk in JSON lines over pipes; a worker between two requests sleeps in a read. It measures its loop
itself, so that the pipe is in no time.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import wait
from typing import IO, Any, NoReturn

from prunebench.errors import BackendUnavailable, PrunebenchError, reason
from prunebench.timing import seconds_per_call

ANSWER_SECONDS = 600.0  # longer than any network takes to tune on a busy machine: a request beyond it hangs
_EXIT_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
# The parent's search path: where it found its modules, a plugin's among them, the worker does too.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from prunebench.measuring.workers import serve; serve()"
)


class WorkerFailed(PrunebenchError, RuntimeError):
    """A worker died, hangs or raised; the message says which, `worker` is its name."""

    def __init__(self, worker: str, message: str) -> None:
        super().__init__(message)
        self.worker = worker


class Worker:
    """A process that builds one callable and times it: `prepare`, then `seconds_per_call` as often as wanted.

    factory: "module:function"; the function is called there with plain values, and is a context manager that gives
    (callable, facts as JSON has them). modules: imported before, for what they register. On Linux the worker dies with
    the thread that started it, elsewhere at its next read. `timeout`: seconds after which an answer counts as lost.
    """

    def __init__(
        self, name: str, factory: str, modules: Iterable[str] = (), *, timeout: float = ANSWER_SECONDS
    ) -> None:
        self.name, self.timeout = name, timeout
        self._left = b""
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        words = [json.dumps(sys.path), str(os.getpid()), factory, *modules]
        # A session of its own: an interrupt at the keyboard is the parent's to answer, and what the worker starts
        # can be ended with it.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def awake(self) -> None:
        """Return once the worker has imported what it needs, or has failed at that: `prepare` says so."""
        if not self._left:
            wait([self._out.fileno()], self.timeout)

    def prepare(self, **arguments: Any) -> dict[str, Any]:
        """Build the callable; returns its facts. Raises BackendUnavailable as the factory did, else WorkerFailed."""
        self._answer()  # that it is ready
        facts: dict[str, Any] = self._ask(arguments)["facts"]
        return facts

    def seconds_per_call(self, loops: int) -> float:
        """Seconds per call over a loop in the worker."""
        return float(self._ask({"loops": loops})["seconds"])

    def close(self) -> None:
        """End the worker and what it started; it keeps nothing that could be lost."""
        self._kill()
        for pipe in (self._in, self._out, self._stderr):
            pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._in.closed:
            raise WorkerFailed(self.name, "its process has ended")
        try:
            self._in.write(json.dumps(request).encode() + b"\n")
        except OSError:
            self._died()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        until = time.monotonic() + self.timeout
        while b"\n" not in self._left:
            if not wait([self._out.fileno()], max(0.0, until - time.monotonic())):
                self._kill()
                raise WorkerFailed(self.name, f"its process gave no answer within {self.timeout:g} s")
            part = self._out.read(1 << 16)
            if not part:
                self._died()
            self._left += part
        line, _, self._left = self._left.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "raised" in answer:
            if answer["raised"] == BackendUnavailable.__name__:
                raise BackendUnavailable(answer["message"])
            raise WorkerFailed(self.name, f"{answer['raised']}: {answer['message']}".removesuffix(": "))
        return answer

    def _died(self) -> NoReturn:
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:  # it lives on without its pipes: as good as dead
            self._kill()
            raise WorkerFailed(self.name, "its process closed its pipes") from None
        how = f"ended with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            how = f"was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        last = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        raise WorkerFailed(self.name, f"its process {how}" + (f": {last[-1][:200]}" if last else ""))

    def _kill(self) -> None:
        if self._process.poll() is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def serve() -> None:
    """What a worker runs: words from the command line, then a request per line until the pipe ends."""
    parent, factory, *modules = sys.argv[2:]
    _die_with(int(parent))
    requests, answers = _own_pipes()

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()

    try:
        for name in modules:
            importlib.import_module(name)
        module, _, function = factory.partition(":")
        build = getattr(importlib.import_module(module), function)
        say(ready=True)
        line = requests.readline()
        if not line:
            return
        with build(**json.loads(line)) as (call, facts):
            say(facts=facts)
            gc.collect()
            gc.disable()
            for line in requests:
                say(seconds=seconds_per_call(call, json.loads(line)["loops"]))
    except BrokenPipeError:
        return
    except Exception as error:
        words = reason(error).removeprefix(type(error).__name__).removeprefix(": ")
        say(raised=type(error).__name__, message=words[:500])


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before it was watched
        os._exit(1)


def _own_pipes() -> tuple[IO[str], IO[str]]:
    # What a library prints or reads must not meet the requests, and no child of the worker may hold its pipes open.
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers
