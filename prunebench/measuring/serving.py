"""What runs in a worker's process: requests in, answers out, a line each; all else is kept from the pipes."""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
from contextlib import suppress
from typing import IO, Any

from prunebench.errors import BackendUnavailable, PrunebenchError, reason
from prunebench.timing import seconds_per_call
from prunebench.untrusted import short_line

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NO_MEMORY = ("can't allocate memory", "out of memory")
_answers: IO[str] | None = None


def _say(**answer: Any) -> None:
    assert _answers is not None
    _answers.write(json.dumps(answer, allow_nan=False) + "\n")
    _answers.flush()


def tell(**told: Any) -> None:
    """In a worker: let the parent hear plain values on the way to an answer."""
    _say(told=told)


def serve() -> None:
    """What a worker runs: words from the command line, then a request per line until the pipe ends."""
    global _answers
    parent, factory, *modules = sys.argv[2:]
    die_with(int(parent))
    requests, _answers = _own_pipes()

    try:
        for name in modules:
            _import(name)
        module, _, function = factory.partition(":")
        build = getattr(importlib.import_module(module), function)
        _say(ready=True)
        line = requests.readline()
        if not line:
            return
        with build(**json.loads(line)) as (call, facts):
            _say(facts=facts)
            gc.collect()
            gc.disable()
            for line in requests:
                _say(seconds=seconds_per_call(call, json.loads(line)["loops"]))
    except BrokenPipeError:
        return
    except Exception as error:
        off = isinstance(error, BackendUnavailable)
        # An error raised on purpose says all by its words.
        kind = "" if isinstance(error, PrunebenchError) and not off else type(error).__name__
        words = short_line(reason(error).removeprefix(type(error).__name__).removeprefix(": "), 500)
        _say(raised=kind, message=words, status="oom" if _of_memory(error) else "failed")


def _import(name: str) -> None:
    """Import a module by its name; NAME=FILE from that file where the search path has another one of the name."""
    name, _, file = name.partition("=")
    found = None
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec(name)
    if not file or (found is not None and found.origin == file):
        importlib.import_module(name)
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: so says the error or what caused it; torch has no type of its own for it on a CPU."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in reason(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def adopt() -> None:
    """On Linux: become the parent of those descendants whose own parents end, however they left their group."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int, by: int = signal.SIGKILL) -> None:
    """End this process, or on Linux send it the signal, when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
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
