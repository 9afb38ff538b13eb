"""A process that has imported what measuring needs and computed nothing: forking it takes milliseconds, where a new
process would import for seconds. Linux only: elsewhere libraries break in a forked process.

Nursery and parent talk over a socket, one child at a time: words and three files to it; back come the child's process
id and, once it has ended, how. An ended child is reaped only when the parent asks for the next, so that its number
can't be another's while the parent still means it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from prunebench.measuring.nursery import tend; tend()"
_WORDS = 1 << 20  # bytes of a request; the search path is the longest of it


def can_fork() -> bool:
    """Whether a process that imported torch may be forked here."""
    return sys.platform == "linux"


class Nursery:
    """Starts with its first child; with the thread that started it, it and its children end."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._modules = list(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._last: Forked | None = None

    def fork(self, words: Sequence[str], files: Sequence[int]) -> Forked:
        """A child that runs `serving.serve` on the words; files: its stdin, stdout and stderr. OSError if it can't.

        The child before it is ended.
        """
        if self._last is not None:
            self._last.release()
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._socket is not None
        socket.send_fds(self._socket, [json.dumps(list(words)).encode()], list(files))
        answer = _received(self._socket)
        if "pid" not in answer:
            raise OSError("the process that cases are forked from has ended")
        self._last = Forked(int(answer["pid"]), self._socket)
        return self._last

    def close(self) -> None:
        """End it, and the last child."""
        if self._last is not None:
            self._last.release()
        self._last = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None

    def _start(self) -> None:
        self.close()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [json.dumps(sys.path), str(os.getpid()), *self._modules]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *words],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )


class Forked:
    """A child of the nursery, as far as the parent needs it: subprocess.Popen's pid, poll and wait."""

    def __init__(self, pid: int, nursery: socket.socket) -> None:
        self.pid = pid
        self._nursery = nursery
        self._code: int | None = None
        self._released = False

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None and wait([self._nursery], 0):
            # Without an answer the nursery is gone, and its children went with it.
            self._code = int(_received(self._nursery).get("code", -signal.SIGKILL))
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The same once it has ended; subprocess.TimeoutExpired after so many seconds."""
        if self._code is None and not wait([self._nursery], timeout):
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def end_group(self) -> None:
        """Kill it and what it started; an ended child isn't reaped yet, so the number is still its own."""
        if not self._released:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def release(self) -> None:
        """End it for good: from now on its number may be another's."""
        self.end_group()
        self.wait()
        self._released = True


def _received(channel: socket.socket) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(channel.recv(_WORDS) or b"{}")
    except OSError:
        answer = {}
    return answer


def tend() -> None:
    """What a nursery runs: import, then a child per request until the parent's end of the socket is closed."""
    from prunebench.measuring.serving import adopt, die_with

    parent, *modules = sys.argv[2:]
    # With the parent goes all that ever came from here.
    signal.signal(signal.SIGTERM, _end)
    adopt()
    die_with(int(parent), signal.SIGTERM)
    for name in modules:
        importlib.import_module(name)
    # Threads that a library started at its import are no reason: it was asked to compute nothing yet.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    channel = socket.socket(fileno=os.dup(0))
    child = 0
    while True:
        message, files, _, _ = socket.recv_fds(channel, _WORDS, 3)
        if child:
            os.waitpid(child, 0)
        if not message:
            return
        child = os.fork()
        if child == 0:
            _become_worker(json.loads(message), files, channel)
        _lead(child)  # both do: whichever comes first, it leads a group before the parent hears of it
        for file in files:
            os.close(file)
        channel.send(json.dumps({"pid": child}).encode())
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        end_children(but=child)  # what it started in other sessions lives on, and is this process's by now
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        channel.send(json.dumps({"code": code}).encode())


def end_children(but: int = 0) -> None:
    """Kill and reap this process's children until there are none, those that they leave behind included."""
    while True:
        found = [child for child in _children() if child != but]
        if not found:
            return
        for child in found:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in found:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _end(*_: object) -> None:
    end_children()
    os._exit(1)


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _lead(process: int) -> None:
    with suppress(OSError):
        os.setpgid(process, process)


def _become_worker(words: Sequence[str], files: Sequence[int], channel: socket.socket) -> None:
    """In the child: never returns."""
    from prunebench.measuring.serving import adopt, serve

    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _lead(0)
        adopt()  # what it leaves behind stays under its limit of memory
        channel.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        path, _, *rest = words
        sys.path[:] = json.loads(path)
        sys.argv[1:] = [path, str(os.getppid()), *rest]  # it dies with the nursery, which dies with the parent
        serve()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
