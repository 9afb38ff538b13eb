"""A callable built and timed in a process of its own, so that the threads of one runtime never hold another's core.

Parent and worker talk in JSON lines over pipes; a worker between two requests sleeps in a read. It measures its loop
itself, so that the pipe is in no time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import wait
from typing import IO, Any, NoReturn

from prunebench.errors import BackendUnavailable, PrunebenchError
from prunebench.measuring.nursery import Forked, Nursery
from prunebench.measuring.resident import held_bytes, kernel_kills
from prunebench.untrusted import short_line

ANSWER_SECONDS = 600.0  # longer than any network takes to tune on a busy machine: a request beyond it hangs
WATCH_SECONDS = 0.05  # between two looks at a worker's memory; a look takes a tenth of a millisecond
_EXIT_SECONDS = 5.0
# The parent's search path: where it found its modules, a plugin's among them, the worker does too.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from prunebench.measuring.serving import serve; serve()"
)


class WorkerFailed(PrunebenchError, RuntimeError):
    """A worker died, hangs or raised; the message says which, `worker` is its name, `status` a case's that is lost."""

    def __init__(self, worker: str, message: str, status: str = "failed") -> None:
        super().__init__(message)
        self.worker, self.status = worker, status


class Worker:
    """A process that builds one callable and times it: `prepare`, then `seconds_per_call` as often as wanted.

    factory: "module:function"; the function is called there with plain values, and is a context manager that gives
    (callable, facts as JSON has them). modules: imported before, for what they register: names, or NAME=FILE. On Linux
    the worker dies with the thread that started it, elsewhere at its next read. `timeout`: seconds after which an
    answer counts as lost. memory: bytes that it and its children may hold. heard: gets what the worker tells on the
    way, from which the time of its answer counts anew. nursery: where to fork it, instead of a new interpreter.
    """

    def __init__(
        self,
        name: str,
        factory: str,
        modules: Iterable[str] = (),
        *,
        timeout: float = ANSWER_SECONDS,
        memory: int | None = None,
        heard: Callable[[dict[str, Any]], None] | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self.name, self.timeout, self.memory, self.heard = name, timeout, memory, heard
        self._left = b""
        self._kills = kernel_kills()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        words = [json.dumps(sys.path), str(os.getpid()), factory, *modules]
        self._process: subprocess.Popen[bytes] | Forked
        if nursery is None:
            # A session of its own: an interrupt at the keyboard is the parent's to answer, and what the worker starts
            # can be ended with it.
            started = subprocess.Popen(
                [sys.executable, "-c", _CODE, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )
            assert started.stdin is not None
            assert started.stdout is not None
            self._process, self._in, self._out = started, started.stdin, started.stdout
        else:
            self._process, self._in, self._out = _forked(nursery, words, self._stderr)

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
        while True:
            while b"\n" not in self._left:
                self._read(until)
            line, _, self._left = self._left.partition(b"\n")
            answer = self._parsed(line)
            if "told" not in answer:
                break
            if self.heard is not None:
                self.heard(answer["told"])
            until = time.monotonic() + self.timeout
        if "raised" in answer:
            if answer["raised"] == BackendUnavailable.__name__:
                raise BackendUnavailable(answer["message"])
            words = ": ".join(filter(None, (answer["raised"], answer["message"])))
            raise WorkerFailed(self.name, words, answer["status"])
        return answer

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        kinds = {"facts": dict, "told": dict, "seconds": float, "ready": bool, "raised": str}
        if not isinstance(answer, dict) or not any(isinstance(answer.get(n), kind) for n, kind in kinds.items()):
            self._kill()
            raise WorkerFailed(self.name, "its process wrote what is no answer into the pipe of its answers")
        return answer

    def _read(self, until: float) -> None:
        """Take in a part of an answer, or find that none will come."""
        left = max(0.0, until - time.monotonic())
        if wait([self._out.fileno()], left if self.memory is None else min(left, WATCH_SECONDS)):
            part = self._out.read(1 << 16)
            if not part:
                self._died()
            self._left += part
        elif self.memory is not None and self._has_ended():
            self._died()  # what it started may hold its end of the pipe open
        elif time.monotonic() >= until:
            self._kill()
            raise WorkerFailed(self.name, f"its process gave no answer within {self.timeout:g} s", "timeout")
        if self.memory is not None and (held := held_bytes(self.pid) or 0) > self.memory:
            self._kill()
            allowed = f"more than the {self.memory / 1e9:.2f} GB allowed"
            raise WorkerFailed(self.name, f"its process held {held / 1e9:.2f} GB of memory, {allowed}", "oom")

    def _died(self) -> NoReturn:
        until = time.monotonic() + _EXIT_SECONDS
        while not self._has_ended():
            if time.monotonic() >= until:  # it lives on without its pipes: as good as dead
                self._kill()
                raise WorkerFailed(self.name, "its process closed its pipes")
            time.sleep(0.002)
        self._kill()
        code = self._process.wait()
        how, status = f"ended with exit code {code}", "failed"
        if code < 0:
            how = f"was ended by {_signal_name(-code)}"
            if code == -signal.SIGKILL:
                known = kernel_kills() > self._kills
                status, how = ("oom" if known else status), f"{how}, {'' if known else 'perhaps '}for lack of memory"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        last = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        raise WorkerFailed(self.name, f"its process {how}" + (f": {short_line(last[-1], 200)}" if last else ""), status)

    def _has_ended(self) -> bool:
        """Whether it ended. It isn't reaped, where that can be: until then its number is also that of its group."""
        if isinstance(self._process, Forked) or not hasattr(os, "waitid"):
            return self._process.poll() is not None
        with suppress(ChildProcessError):
            if self._process.returncode is None:
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _kill(self) -> None:
        """End it and what it started."""
        if isinstance(self._process, Forked):
            self._process.end_group()
        elif self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def _forked(nursery: Nursery, words: list[str], stderr: IO[bytes]) -> tuple[Forked, Any, Any]:
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    try:
        process = nursery.fork(words, (theirs_in, theirs_out, stderr.fileno()))
    except BaseException:
        os.close(ours_in)
        os.close(ours_out)
        raise
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    return process, open(ours_in, "wb", buffering=0), open(ours_out, "rb", buffering=0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
