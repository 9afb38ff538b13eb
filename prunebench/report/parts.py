"""The tables of the runs, each row with the command that measures it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunebench.answer_tables import Key, apart
from prunebench.layer_tables import layer_details, layer_rows
from prunebench.network_tables import network_details, network_rows
from prunebench.report.block import COMMAND, Block, block_of
from prunebench.report.commands import grid_commands, layer_command, network_command
from prunebench.report.notes import NOTES
from prunebench.runs import Run
from prunebench.table_files import TITLES, kinds_of
from prunebench.tables import CELL, detail, frame


@dataclass(frozen=True)
class Section:
    """Tables of one kind under a heading, with how to read them."""

    id: str
    title: str
    note: str
    blocks: tuple[Block, ...]


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """The tables of `prunebench tables`, the summary before the numbers behind it; kinds without a row are left out."""
    commands, kinds = _commands(runs), kinds_of(runs)
    found = []
    for kind in ("main", "networks", "layers", "breakeven", "bytes"):
        blocks = []
        for key, table in kinds[kind].items():
            if len(table):
                again = table.assign(**{COMMAND: commands[kind][key]})  # refuses where a row has none
                blocks.append(block_of(f"{kind}-{key[0]}-t{key[1]}", _where(key), again, kind))
        if blocks:
            found.append(Section(kind, TITLES[kind].capitalize(), NOTES[kind], tuple(blocks)))
    numbers = [block_of(f"{name}-csv", f"{name}.csv", table, tucked=True) for name, table in _details(runs).items()]
    return [*found, Section("numbers", "All numbers", NOTES["numbers"], tuple(numbers))]


def _where(key: Key) -> str:
    return f"machine {key[0]}, {key[1]} thread{'' if key[1] == 1 else 's'}"


def _commands(runs: Sequence[Run]) -> dict[str, dict[Key, list[str]]]:
    """{kind: {(machine, threads): a command per row of that table}}; rows stand in the same order as there."""
    found: dict[str, dict[Key, list[str]]] = {kind: {} for kind in TITLES}
    if any(run.facts for run in runs):
        cases = frame(runs)
        details = detail(cases)
        for place, own in details.groupby(["machine", "threads"]):
            key = (str(place[0]), int(place[1]))
            measured = cases[(cases["machine"] == key[0]) & (cases["threads"] == key[1])]
            for kind, rows, by in (
                ("main", own, [*CELL, "batch_size"]),
                ("bytes", own[own["n"] > 0], CELL),
            ):
                again = grid_commands(measured, by)
                labels = rows[by].drop_duplicates().itertuples(index=False, name=None)
                found[kind][key] = [again[row] for row in labels]
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
