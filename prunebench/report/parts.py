"""The tables of the runs, each row with the command that measures it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunebench.report.block import COMMAND, Block, block_of
from prunebench.report.notes import NOTES
from prunebench.runs import Run
from prunebench.tables.answers import Key, apart
from prunebench.tables.commands import grid_commands, labels, layer_command, network_command
from prunebench.tables.files import TITLES, Tables, kinds_of
from prunebench.tables.grid import detail, frame
from prunebench.tables.layers import layer_details, layer_rows
from prunebench.tables.networks import network_details, network_rows

_ORDER = ("main", "networks", "layers", "breakeven-networks", "breakeven", "bytes")


@dataclass(frozen=True)
class Section:
    """Tables of one kind under a heading, with how to read them."""

    id: str
    title: str
    note: str
    blocks: tuple[Block, ...]


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """The tables of `prunebench tables`, the summary before the numbers behind it; kinds without a row are left out."""
    kinds = kinds_of(runs)
    commands = _commands(runs, kinds)
    found = []
    for kind in (*_ORDER, *(kind for kind in kinds if kind not in _ORDER)):
        blocks = []
        for key, table in kinds[kind].items():
            if len(table):
                again = commands.get(kind, {}).get(key)
                whole = table if again is None else table.assign(**{COMMAND: again})
                blocks.append(block_of(f"{kind}-{key[0]}-t{key[1]}", _where(key), whole, kind))
        if blocks:
            found.append(Section(kind, TITLES[kind].capitalize(), NOTES.get(kind, ""), tuple(blocks)))
    numbers = [block_of(f"{name}-csv", f"{name}.csv", table, tucked=True) for name, table in _details(runs).items()]
    return [*found, Section("numbers", "All numbers", NOTES["numbers"], tuple(numbers))]


def _where(key: Key) -> str:
    return f"machine {key[0]}, {key[1]} thread{'' if key[1] == 1 else 's'}"


def _commands(runs: Sequence[Run], kinds: Mapping[str, Tables]) -> dict[str, dict[Key, list[str]]]:
    """{kind: {(machine, threads): a command per row of that table}}."""
    found: dict[str, dict[Key, list[str]]] = {}
    cases = frame(runs) if any(run.facts for run in runs) else pd.DataFrame()
    named = labels(cases)
    for kind in ("main", "bytes", "breakeven-networks"):
        for key, table in kinds[kind].items():
            own = (cases["machine"] == key[0]) & (cases["threads"] == key[1])
            found.setdefault(kind, {})[key] = grid_commands(cases[own], named[own], table) if len(table) else []
    found |= {"networks": {}, "layers": {}, "breakeven": {}}
    for key, facts in apart(network_rows(runs)).items():
        found["networks"][key] = [network_command(f) for f in facts]
    for key, facts in apart(layer_rows(runs)).items():
        found["layers"][key] = [layer_command([f]) for f in facts]
        of_layer: dict[str, list[dict[str, Any]]] = {}
        for f in facts:
            of_layer.setdefault(f["layer"]["id"], []).append(f)
        found["breakeven"][key] = [layer_command(own) for own in of_layer.values()]
    return found


def _details(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    tables = {"layers-detail": layer_details(runs), "networks-detail": network_details(runs)}
    if any(run.facts for run in runs):
        tables = {"detail": detail(frame(runs)), **tables}
    return {name: table for name, table in tables.items() if len(table)}
