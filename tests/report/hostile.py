"""Saved runs with a script in every string that a reader of runs lets through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError
from prunebench.runs import Run, read_run

ROOT = Path(__file__).resolve().parent.parent.parent
ATTACKS = (
    "<script>window.hacked=1;alert(1)</script>",
    '"><img src=x onerror="window.hacked=1;alert(1)">',
    "'><svg onload=window.hacked=1>{{ 7*7 }}",
    "</script></style></title><!--<script>window.hacked=1</script>",
    "$\\frac{1}{<b onclick=alert(1)>_^",
)
FILE_NAME = "<img src=x onerror=window.hacked=1>"


def hostile_runs(folder: Path) -> tuple[list[Run], int]:
    """The committed runs, cut short, with an attack wherever one is accepted; and in how many places that is."""
    runs, places = [], 0
    for source in sorted((ROOT / "results" / "runs").rglob("*.json")):
        content = json.loads(source.read_text())
        content["benchmarks"] = content["benchmarks"][:4]
        content["benchmarks"][0]["extra_info"] |= {"status": "failed", "reason": "out of luck"}
        content["machine_info"]["prunebench"]["versions"]["<b onclick=alert(1)>"] = "1"
        path = folder / f"{source.name[:4]}_{FILE_NAME}{source.stem[5:]}.json"
        path.write_text(json.dumps(content))
        for count, (holder, key) in enumerate(_strings(content)):
            before = holder[key]
            holder[key] = ATTACKS[count % len(ATTACKS)]
            path.write_text(json.dumps(content))
            try:
                read_run(path)
                places += 1
            except UsageError:
                holder[key] = before
        path.write_text(json.dumps(content))
        runs.append(read_run(path))
    return runs, places


def _strings(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every string that the project reads."""
    yield content, "datetime"
    waiting: list[Any] = [content["machine_info"]["prunebench"], *(b["extra_info"] for b in content["benchmarks"])]
    while waiting:
        holder = waiting.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(value, str) or (value is None and key in ("reason", "collapse", "verdict", "baseline")):
                yield holder, key
            elif isinstance(value, (dict, list)):
                waiting.append(value)
