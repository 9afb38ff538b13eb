"""A model that a function of the user's own returns: `FILE.py:FUNCTION` or `MODULE:FUNCTION`, called without arguments.

The code runs as the user's own: nothing is loaded but what was named on the command line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from prunebench.errors import UsageError, reason
from prunebench.sources import KINDS, Source


def build(text: str) -> Source:
    """What the function returns; UsageError where it can't be found, raises, or returns no module."""
    from torch import nn

    place, _, name = text.rpartition(":")
    module = _file(place) if place.endswith(".py") else _module(place, text)
    function = getattr(module, name, None)
    if function is None:
        own = sorted(
            k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__
        )
        raise UsageError(f"{place} has no {name!r}; it defines: {', '.join(own) or 'nothing that could be called'}")
    try:
        model = function if isinstance(function, nn.Module) else function()
    except Exception as error:
        raise UsageError(f"{text} raised {reason(error)[:300]}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{text} returned {type(model).__name__}; it has to return a torch.nn.Module")
    return Source(text, model)


def _file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {place}; give FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    added = sys.modules.setdefault(path.stem, module) is module  # classes look themselves up by their module's name
    sys.path.insert(0, str(path.parent))  # what lies beside it can be imported, as when it is run
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if added:
            del sys.modules[path.stem]
        raise UsageError(f"{place} can't be imported: {reason(error)[:300]}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _module(place: str, text: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and place.split(".")[0] == error.name:
            raise UsageError(f"{text!r}: there is no module {place!r}; known: {KINDS}") from error
        raise UsageError(f"{place} can't be imported: {reason(error)[:300]}") from error
    except Exception as error:
        raise UsageError(f"{place} can't be imported: {reason(error)[:300]}") from error
    finally:
        sys.path.remove(here)
