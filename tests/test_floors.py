"""Imports point down only, deferred imports included: values < rooms < verbs < experiment < edges."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "prunebench"

FLOORS = [
    {
        "errors",
        "spec",
        "atomic",
        "attention",
        "cell",
        "controls",
        "recipe",
        "outputs",
        "devices",
        "registry",
        "masks",
        "units",
        "sharing",
        "proportions",
        "costs",
        "machine",
        "conditions",
        "facts",
        "guard",
        "answers",
        "shapes",
        "state_dicts",
        "rows",
        "reparametrised",
        "statistics",
        "untrusted",
        "saved_values",
    },
    {
        "datasets",
        "models",
        "criteria",
        "granularities",
        "scopes",
        "schedules",
        "formats",
        "engine",
        "kernels",
        "backends",
        "compaction",
        "sources",
    },
    {"pruner", "training", "regrow", "timing", "reference", "roofs", "export"},
    {
        "store",
        "remote_store",
        "scale",
        "pipeline",
        "executors",
        "profiles",
        "measuring",
        "questions",
        "journal",
        "runs",
        "settings",
    },
    {
        "tables",
        "claims",
        "plots",
        "report",
        "comparison",
        "checks",
        "commands",
        "progress",
        "pytest_plugin",
        "pytest_session",
        "cli",
    },
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
# On the floor of rooms one room may use another only where the design says so.
ROOMS_BESIDE = {("backends", "engine"), ("backends", "compaction"), ("kernels", "engine"), ("sources", "formats")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
            if node.module == "prunebench":
                names = [f"prunebench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path.name} imports relatively; write the full name, so that floors can be checked")
        found |= {name.split(".")[1] for name in names if name.startswith("prunebench.")}
    return found


def test_every_module_has_a_floor():
    assert {room(path) for path in modules()} - {"__init__"} == set(FLOOR)


def test_readme_tells_every_module_s_floor():
    readme = (PACKAGE.parent / "README.md").read_text()
    told = [
        {name.rstrip("/") for name in re.findall(r"`([a-z_/]+)`", line.split("|")[2])}
        for line in readme.splitlines()
        if line.startswith(("| values |", "| rooms |", "| verbs |", "| experiment |", "| edges |"))
    ]
    assert told[::-1] == FLOORS


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = room(path)
    if here == "__init__":
        return
    for other in imported(path) - {here, "__version__"}:
        assert other in FLOOR, f"{path} imports prunebench.{other}, which has no floor"
        assert FLOOR[other] <= FLOOR[here], f"{path} (floor {FLOOR[here]}) imports {other} (floor {FLOOR[other]})"
        if FLOOR[here] == FLOOR[other] == 1:
            assert (here, other) in ROOMS_BESIDE, f"room {here} imports room {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_about_one_thing(path):
    assert len(path.read_text().splitlines()) <= 300


def test_below_the_experiment_nothing_knows_pytest_or_the_command_line():
    for path in modules():
        if FLOOR.get(room(path), 4) < 3:
            text = path.read_text()
            assert "import pytest" not in text
            assert "import argparse" not in text


def test_only_the_engine_knows_that_c_exists():
    for path in modules():
        if room(path) != "engine":
            assert "_native" not in path.read_text(), path
