"""Writes docs/reference.md from the docstrings: `python docs/make_reference.py`. A test says when it is out of date."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

# What is public, in the order of the page: a heading, a line about it, and module:name of each.
SECTIONS = [
    ("Prune", "", ["prunebench:prune", "prunebench:Pruner", "prunebench:compact"]),
    ("Run", "", ["prunebench:compile"]),
    ("Save", "", ["prunebench:save", "prunebench:load", "prunebench:export_onnx"]),
    ("Kernels", "", ["prunebench.kernels:csr_matmul", "prunebench.kernels:isa"]),
    (
        "Plugins",
        "Decorators; how to use them: [a criterion](add-a-criterion.md), [the others](plugins.md).",
        [f"prunebench:{name}" for name in
         ("criterion", "granularity", "scope", "schedule", "model", "dataset", "backend")],
    ),
    (
        "For dataset and backend plugins",
        "",
        ["prunebench.datasets.base:Dataset", "prunebench.datasets.base:Split", "prunebench.datasets.base:make",
         "prunebench.backends.torch_modules:TorchExecutor"],
    ),
    (
        "Errors and warnings",
        "Every error raised on purpose is a `PrunebenchError`: one line says what was wrong and what to do.",
        ["prunebench.errors:PrunebenchError", "prunebench.errors:UsageError", "prunebench.errors:PluginError",
         "prunebench.errors:BackendUnavailable", "prunebench.errors:DatasetMissing",
         "prunebench.masks:LayerCollapseWarning", "prunebench.masks:NotPrunedWarning"],
    ),
]  # fmt: skip
GROUPS = {
    "criteria": "Criteria", "scopes": "Scopes", "schedules": "Schedules", "granularities": "Granularities",
    "models": "Models", "datasets": "Datasets", "backends": "Backends",
}  # fmt: skip
HEAD = """# Reference

Generated from the docstrings by `python docs/make_reference.py`; edits here are lost. `pb`: `import prunebench as pb`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, about, names in SECTIONS:
        parts.append(f"## {title}\n" + (f"\n{about}\n" if about else ""))
        parts += [_entry(name) for name in names]
    parts.append(
        "## Names\n\nWhat is registered here, by the first line of its docstring; parameters with their defaults.\n"
    )
    parts += [_group(group, title) for group, title in GROUPS.items()]
    return "\n".join(parts)


def _entry(place: str) -> str:
    module, _, name = place.partition(":")
    thing = getattr(importlib.import_module(module), name)
    shown = f"pb.{name}" if module == "prunebench" else f"pb.{module.partition('.')[2]}.{name}"
    text = f"### {shown}\n\n{_signature(shown, thing)}{_text(thing)}\n"
    for method, value in _methods(thing):
        text += f"\n**`.{method}`**{_parameters(value)}: {_text(value)}\n"
    return text


def _signature(shown: str, thing: Any) -> str:
    if isinstance(thing, type) and issubclass(thing, Exception):
        return ""
    signature = inspect.signature(thing)
    line = f"{shown}{signature}"
    if len(line) > 100:
        parts = [str(p) for p in signature.parameters.values()]
        kinds = [p.kind for p in signature.parameters.values()]
        if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
            parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        back = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
        line = f"{shown}(\n" + "".join(f"    {part},\n" for part in parts) + f"){back}"
    return f"```text\n{_unquoted(line)}\n```\n\n"


def _methods(thing: Any) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself documents."""
    if not isinstance(thing, type) or issubclass(thing, Exception):
        return
    for name, value in vars(thing).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and callable(function) and inspect.getdoc(function):
            yield name, value


def _parameters(value: Any) -> str:
    if isinstance(value, property):
        return ""
    names = [str(p) for p in list(inspect.signature(getattr(value, "__func__", value)).parameters.values())]
    return _unquoted(f" `({', '.join(name for name in names if name != 'self')})`")


def _text(thing: Any) -> str:
    return _quoted(inspect.getdoc(thing) or "")


def _quoted(text: str) -> str:
    """Plain text as Markdown: outside of code, what would be taken for markup or HTML is written so that it isn't."""
    parts = text.split("`")
    parts[::2] = [
        re.sub(r"[<*]|(?<!\w)_|_(?!\w)", lambda m: "&lt;" if m[0] == "<" else "\\" + m[0], part) for part in parts[::2]
    ]
    return "`".join(parts)


def _unquoted(signature: str) -> str:
    """Annotations are kept as text, and shown with quotes that nobody wrote."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)


def _group(group: str, title: str) -> str:
    from prunebench import registry

    rows = []
    for name in registry.names(group):
        plugin, _ = registry.get(group, name)
        if not plugin.builtin:
            continue
        values = ", ".join(f"`{key}={value}`" for key, value in registry.defaults(plugin).items() if key != "threads")
        first = (inspect.getdoc(plugin.function) or "").partition("\n\n")[0].replace("\n", " ")
        told = _quoted(first).replace("|", "\\|")
        rows.append(f"| `{name}` | {told} | {values} |")
    return f"### {title}\n\n| name | | parameters |\n|---|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (HERE / "reference.md").write_text(page(), encoding="utf-8")
