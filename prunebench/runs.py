"""Saved runs, read back: pytest-benchmark's JSON files and the journals of runs that were cut off."""

from __future__ import annotations

import gc
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunebench import saved_values
from prunebench.answers import check_answer
from prunebench.errors import UsageError, unknown
from prunebench.facts import case_of
from prunebench.journal import SUFFIX
from prunebench.machine import identity
from prunebench.untrusted import parse_json, plain_line, read_text

_ID = re.compile(r"[a-z0-9]{1,32}")  # becomes part of a table's file name
_OURS = {"schema", "cell"}  # facts have both; with one of them lost they are damaged, and not somebody else's
_SAVED = re.compile(r"^(\d{4})_(.+)\.json$")


@dataclass(frozen=True)
class Run:
    """One saved run: its name and time, the machine it ran on, and the facts of its cases: the grid's and others'."""

    path: Path
    name: str
    datetime: str
    machine: dict[str, Any]
    facts: tuple[dict[str, Any], ...]
    complete: bool = True
    answers: tuple[dict[str, Any], ...] = ()  # of the questions beside the grid

    @property
    def cases(self) -> int:
        """How many facts it holds in all."""
        return len(self.facts) + len(self.answers)


def run_files(folder: Path) -> list[Path]:
    """Every saved run and journal under a folder, in a fixed order."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.rglob("*") if f.name.endswith(SUFFIX) or _SAVED.match(f.name))


def load_runs(folder: Path, chosen: Sequence[str] = ()) -> list[Run]:
    """The runs named (by name, number or path), or all; UsageError lists what there is where one is missing."""
    files = run_files(folder)
    if not chosen:
        return told_apart([run for run in map(read_run, files) if run.cases])
    found: list[Path] = []
    for text in chosen:
        path = Path(text)
        matching = [path] if path.is_file() else [f for f in files if text in run_names(f)]
        if not matching:
            known = sorted({run_names(f)[0] for f in files})
            raise unknown(
                "run", text, known, f"runs are saved under {folder} by pytest benchmarks --benchmark-save=NAME"
            )
        found += [f for f in matching if f not in found]
    return told_apart([read_run(f) for f in found])


def all_and_chosen(folder: Path, chosen: Sequence[str]) -> tuple[list[Run], list[Run]]:
    """(every run of a folder and those named, each file once; those named, or all)."""
    every, named = load_runs(folder), load_runs(folder, chosen)
    found = {run.path.resolve(): run for run in [*every, *named]}
    apart = dict(zip(found, told_apart(list(found.values())), strict=True))
    return list(apart.values()), [apart[run.path.resolve()] for run in named]


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with an id of its own where one says of itself another machine, build or version than its id's.

    An edited file can say so, and timings must never share a column for an id alone. Those keep the id whose
    description it is the hash of, else the earliest's.
    """
    by_id: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda r: (r.datetime, r.name)):
        by_id.setdefault(run.machine.get("id", ""), {}).setdefault(identity(run.machine), []).append(run)
    other: dict[Path, str] = {}
    for id, described in by_id.items():
        rightful = id if id in described else next(iter(described))
        for hashed, own in described.items():
            if hashed != rightful:
                other |= {run.path: identity(run.machine, id) for run in own}
    return [replace(r, machine={**r.machine, "id": other[r.path]}) if r.path in other else r for r in runs]


def run_names(path: Path) -> tuple[str, ...]:
    """What a file can be called by: its run's name, its number, its stem."""
    saved = _SAVED.match(path.name)
    if saved:
        return saved[2], saved[1], path.stem
    stem = path.name.removesuffix(SUFFIX)
    return stem.rpartition("-")[0] or stem, stem


def read_run(path: Path) -> Run:
    """One file as a run; UsageError names a file that can't be read. Benchmarks without facts are left out."""
    collecting = gc.isenabled()
    gc.disable()  # it would look for rings among a million new values, again and again; JSON makes none
    try:
        text = read_text(path)
        return _from_journal(path, text) if path.name.endswith(SUFFIX) else _from_json(path, parse_json(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = textwrap.shorten(plain_line(error), 500)
        raise UsageError(f"{path} is not a saved run ({said}); remove it or name the runs to use") from error
    finally:
        if collecting:
            gc.enable()


def _from_json(path: Path, content: Any) -> Run:
    if not isinstance(content, dict):
        raise ValueError("it holds no table")
    untimed = content.get("prunebench", {}).get("untimed", [])
    facts = [b["extra_info"] for b in content["benchmarks"] if _OURS & set(b.get("extra_info", {}))] + untimed
    machine = content["machine_info"].get("prunebench", {}) if facts else {}
    return _checked(path, content["datetime"], machine, facts)


def _from_journal(path: Path, text: str) -> Run:
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(parse_json(line))
        except ValueError:
            if number != len(lines) - 1:  # only the last line can have been cut off by a kill
                raise
    if not rows:
        return Run(path, run_names(path)[0], "", {}, (), complete=False)
    head, *facts = rows
    return _checked(path, head["datetime"], head["machine"], facts, complete=False)


def _checked(path: Path, time: Any, machine: Any, found: Sequence[dict[str, Any]], complete: bool = True) -> Run:
    """The run of these facts, sorted by whether they are the grid's."""
    facts = tuple(f for f in found if "question" not in f)
    answers = tuple(f for f in found if "question" in f)
    for one in facts:
        case_of(one)
    for one in answers:
        check_answer(one)
    about = saved_values.machine(machine)
    saved_values.texts({"datetime": time}, ("datetime",), needed=True, most=64)
    if found and not _ID.fullmatch(str(about.get("id", "unknown"))):
        raise ValueError("its machine's id is none")
    return Run(path, run_names(path)[0], time, machine, facts, complete, answers)
