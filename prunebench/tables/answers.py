"""What the tables of layers and networks share: the latest facts of each case, apart by machine and thread count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prunebench.runs import Run

Key = tuple[str, int]  # machine id, threads


def latest(runs: Sequence[Run], question: str, identity: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """Facts of a question with `machine` and `run` added; where a case was measured again, the latest counts."""
    found: dict[Any, dict[str, Any]] = {}
    for run in sorted(runs, key=lambda r: (r.datetime, r.name)):
        for facts in run.answers:
            if facts["question"] == question:
                machine = run.machine.get("id", "unknown")
                key = (machine, facts["threads"], facts["backend"], identity(facts))
                found[key] = {**facts, "machine": machine, "run": run.name}
    return list(found.values())


def apart(rows: Sequence[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """{(machine, threads): rows}: timings of different ones never share a table."""
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["machine"], row["threads"]), []).append(row)
    return dict(sorted(found.items()))


def cell_text(text: object) -> str:
    """Text that can't end a cell of a Markdown table, cut to a readable length."""
    line = " ".join(str(text).replace("|", "/").split())
    return line if len(line) <= 90 else line[:89] + "…"
