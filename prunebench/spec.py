"""A plugin's name with its parameters: the same string on the command line and in Python.

`lp:p=3` names the plugin `lp` with p = 3; `imagefolder:photos:size=64` has one positional value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prunebench.errors import UsageError

NAME = re.compile(r"^[a-z][a-z0-9_]{0,31}$")
_KEY = re.compile(r"^[a-z_][a-z0-9_]*$")


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Spec:
    """A parsed plugin string: name, positional values and keyword parameters, in the order given."""

    name: str
    args: tuple[Any, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str | Spec, kind: str = "plugin") -> Spec:
        """Parse `name[:value][:key=value…]`; raises UsageError that names the text and the form expected."""
        if isinstance(text, Spec):
            return text
        if not isinstance(text, str):
            raise UsageError(f"a {kind} is named by a string such as 'l1' or 'lp:p=3', not by {text!r}")
        return _parsed(text, kind)

    @property
    def text(self) -> str:
        """The canonical string: parameters sorted, so that equal specs have equal text."""
        return ":".join([self.name, *map(_text, self.args), *(f"{k}={_text(v)}" for k, v in self.params)])

    @property
    def slug(self) -> str:
        """The form used in ids, letters, digits and underscores only: `lp:p=3` becomes `lp_p3`."""
        tail = [str(a).rstrip("/").rsplit("/", 1)[-1] for a in self.args] + [f"{k}{_text(v)}" for k, v in self.params]
        return "_".join([self.name, *(re.sub(r"[^A-Za-z0-9_]", "_", t.replace("-", "m")) for t in tail)])


@lru_cache(maxsize=4096)  # a hundred thousand facts name the same few plugins
def _parsed(text: str, kind: str) -> Spec:
    name, *rest = text.split(":")
    if not NAME.fullmatch(name):
        raise UsageError(f"{kind} {text!r} is not a name; names match {NAME.pattern}, parameters follow as :key=value")
    args: list[Any] = []
    params: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if equals and _KEY.match(key) and value:
            if key in params:
                raise UsageError(f"{kind} {text!r} gives {key!r} twice; give it once")
            params[key] = _value(value)
        elif part and not equals and not params:
            args.append(part)
        else:
            raise UsageError(f"{kind} {text!r}: {part!r} is not of the form key=value, for example lp:p=3")
    return Spec(name, tuple(args), tuple(sorted(params.items())))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
