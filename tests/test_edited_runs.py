"""One value of one saved run edited: the cells that depend on it change in all generated tables, and no other cell."""

import copy
import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest
from recomputing import LABELS, columns_of, comma, first_backend, markdown, percent, standing
from test_recomputed import ROOT, Results, check_everything

from prunebench.runs import load_runs
from prunebench.tables.files import write_tables
from prunebench.tables.readme import refresh

KEPT = {"layers": 12, "networks": 8, "claims": 4, None: 36}  # cases of each run, so that tables are made in no time


class Project:
    """A folder with saved runs, their tables, and a README with one generated block."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, root / "results" / "runs"
        self.before = self.cells()
        self.results = Results(root)

    def write(self) -> None:
        runs = load_runs(self.runs)
        write_tables(runs, self.root / "results" / "tables")
        refresh(self.root / "README.md", runs)

    def cells(self):
        """{(file, row, column): text} of every table that isn't the same in another format."""
        self.write()
        tables = {path: comma(path) for path in self.root.rglob("*detail.csv")}
        texts = [path for path in self.root.rglob("*.md") if path.name != "index.md"]
        tables |= {path: [row for table in markdown(path.read_text()) for row in table] for path in texts}
        found = {(p.name, n, c): v for p, rows in tables.items() for n, row in enumerate(rows) for c, v in row.items()}
        return {**found, ("index.md", 0, ""): (self.root / "results" / "tables" / "index.md").read_text()}

    def edit(self, edits):
        """Apply change(facts) to the case with these facts, for all (facts, change); returns the cells that differ."""
        kept = {path: path.read_text() for path in self.runs.rglob("*.json")}
        contents = {path: json.loads(text) for path, text in kept.items()}
        measured = [b["extra_info"] for content in contents.values() for b in content["benchmarks"]]
        wanted = [({k: v for k, v in facts.items() if k != "machine"}, change) for facts, change in edits]
        for change, [case] in [(change, [f for f in measured if f == facts]) for facts, change in wanted]:
            change(case)
        try:
            for path, content in contents.items():
                path.write_text(json.dumps(content))
            return self.changed()
        finally:
            for path, text in kept.items():
                path.write_text(text)

    def changed(self):
        after = self.cells()
        assert set(after) == set(self.before)
        check_everything(Results(self.root))
        return {cell for cell, text in self.before.items() if after[cell] != text}

    def row(self, file, **wanted):
        """The number of the row of a file whose cells are these, or None."""
        rows = {}
        for (name, number, column), text in self.before.items():
            if name == file:
                rows.setdefault(number, {})[column] = text
        found = [n for n, row in rows.items() if all(row.get(c) == v for c, v in wanted.items())]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # sixty times every table: no power cut is awaited here
        yield made(tmp_path_factory)


def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "results" / "runs", root / "results" / "runs")
    grids = []
    for path in sorted((root / "results" / "runs").rglob("*.json")):
        content = json.loads(path.read_text())
        question = content["benchmarks"][0]["extra_info"].get("question")
        content["benchmarks"] = content["benchmarks"][: KEPT[question]]
        path.write_text(json.dumps(content))
        if question is None:
            grids.append((content["machine_info"]["prunebench"]["id"], content["benchmarks"][0]["extra_info"]))
    machine, facts = grids[0]
    query = f"machine={machine} threads={facts['threads']} dataset={facts['cell']['dataset']} controls=true"
    (root / "README.md").write_text(f"<!-- table: {query} -->\n<!-- end of table -->\n")
    return Project(root)


def cases(project):
    """Every case of the grid that counts and was measured, with the row that it is in."""
    return [
        (f, by_backend)
        for table in project.results.grid.values()
        for by_backend in table.values()
        for facts in by_backend.values()
        for f in facts
        if f["status"] == "ok" and f["cell"]["criterion"] != "none"
    ]


def row_of(f):
    cell = f["cell"]
    assert not cell["scope"].startswith("like")
    words = (cell[k] for k in ("criterion", "granularity", "scope", "schedule"))
    values = (cell["dataset"], cell["model"], cell["recipe"]["name"], " ".join(words), percent(cell))
    return dict(zip(LABELS, (*values, str(f["batch_size"])), strict=True))


def detail_row(project, f):
    cell = f["cell"]
    names = ("dataset", "model", "criterion", "granularity", "scope", "schedule")
    return project.row(
        "detail.csv", machine=f["machine"], threads=str(f["threads"]), recipe=cell["recipe"]["name"],
        sparsity=f"{cell['sparsity']:g}", batch_size=str(f["batch_size"]), backend=f["backend"],
        **{name: cell[name] for name in names},
    )  # fmt: skip


# Field -> columns of the main table, where the case's backend stands for the row, or where it is one among others
OF_THE_ROW = {"nonzeros": "nonzeros", "prunable": "nonzeros", "collapse": "nonzeros", "disk_bytes": "bytes on disk",
              "dense_disk_bytes": "bytes on disk"}  # fmt: skip
OF_THE_BACKEND = ("latency_seconds", "speedup", "speedup_low", "speedup_high", "verdict")
OF_THE_BYTES = {"nonzeros": ["parameters"], "prunable": ["parameters"], "parameters": ["parameters"],
                "disk_bytes": ["bitmask file"], "dense_disk_bytes": ["dense file", "bitmask file"]}  # fmt: skip
DETAIL_ONLY = ("accuracy_dense", "relative_error", "macs", "macs_dense", "baseline_seconds", "blocks",
               "training_seconds")  # fmt: skip


def expected_of_grid(project, f, by_backend, field):
    """The cells that depend on a field of one case, by the meaning of the tables."""
    tail = f"{f['machine']}-t{f['threads']}.md"
    columns = set()
    if field == "accuracy":
        columns = {"accuracy %"}  # the row's own, or it is now apart from the row's
    elif field in OF_THE_BACKEND:
        columns = {f["backend"]}
    elif field == "baseline":
        columns = {"over"}
    elif field in OF_THE_ROW and first_backend(by_backend) == f["backend"]:
        # Of a collapse it says that there was one, in whatever words.
        told = field == "collapse" and any(seed["collapse"] for seed in by_backend[f["backend"]])
        columns = set() if told else {OF_THE_ROW[field]}
    found = set()
    for file in (f"main-{tail}", "README.md"):
        number = project.row(file, **row_of(f))
        if number is not None:
            found |= {(file, number, column) for column in columns}
    number = detail_row(project, f)
    found.add(("detail.csv", number, field))
    if field == "accuracy":
        if len(by_backend[f["backend"]]) > 1:
            found.add(("detail.csv", number, "accuracy_std"))
        found |= {("detail.csv", detail_row(project, other), "accuracy_apart") for other in held_against(f, by_backend)}
    labels = {k: v for k, v in row_of(f).items() if k != "batch"}
    number = project.row(f"bytes-{tail}", **labels)
    if field == "resident_bytes":
        found.add((f"bytes-{tail}", number, f"{f['backend']} in memory"))
    if field in OF_THE_BYTES and stands_for_bytes(project, f, labels):
        found |= {(f"bytes-{tail}", number, column) for column in OF_THE_BYTES[field]}
    return found


def held_against(f, by_backend):
    """The facts of a seed whose accuracy is told relative to the one of these facts: all others, or these alone."""
    same = [o for name in columns_of(by_backend) for o in by_backend[name] if o["cell"]["seed"] == f["cell"]["seed"]]
    return same[1:] if same[0] is f else [f]


def stands_for_bytes(project, f, labels):
    """Whether a case's batch size and backend are those whose counts stand for its cell."""
    table = project.results.grid[f["machine"], f["threads"]]
    own = {int(key[-1]): by_backend for key, by_backend in table.items() if key[:-1] == tuple(labels.values())}
    return (f["batch_size"], f["backend"]) == standing(own)


def another(value, field):
    if field in ("accuracy", "prunable"):  # no more than 1, no more than all parameters
        return value / 2
    return "odd" if field in ("verdict", "baseline", "collapse") else 4 * value


GRID_FIELDS = ("accuracy", "parameters", "resident_bytes", *OF_THE_ROW, *OF_THE_BACKEND, "baseline", *DETAIL_ONLY)


def lines_of(project, edited):
    """Cells that may depend on cases, or not: break-even sparsities, which other points of the line can decide."""
    found = set()
    for f in edited:
        file = f"breakeven-networks-{f['machine']}-t{f['threads']}.md"
        labels = {k: v for k, v in row_of(f).items() if k != "sparsity"}
        found.add((file, project.row(file, **labels), f["backend"]))
    return found


def becomes(path, value):
    """An edit: facts[path[0]][path[1]]… = value."""

    def change(facts):
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = copy.deepcopy(value)

    return change


@pytest.mark.parametrize("seed", range(4))
def test_values_of_the_grid_change_their_cells_alone(project, seed):
    """Every field once, each in a case drawn by chance: what differs is what depends on them, no more and no less."""
    chance = random.Random(seed)
    edits, expected = [], set()
    for field in GRID_FIELDS:
        found = [c for c in cases(project) if c[0][field] is not None or field == "collapse"]
        # Every other time a case that stands for its row, which is one in four by chance alone.
        firsts = [c for c in found if first_backend(c[1]) == c[0]["backend"]]
        f, by_backend = chance.choice(firsts if seed % 2 else found)
        edits.append((f, becomes([field], another(f[field], field))))
        expected |= expected_of_grid(project, f, by_backend, field)
    # Whether the break-evens are right is checked with everything else; here, that only these may move.
    assert project.edit(edits) - lines_of(project, [f for f, _ in edits]) == expected


def of_several_seeds(project):
    found = [f for f, by_backend in cases(project) if len(by_backend[f["backend"]]) > 1]
    if not found:
        pytest.skip("no run with several seeds is committed")
    return random.Random(0).choice(found)


def test_a_seed_s_number_is_in_no_table(project):
    f = of_several_seeds(project)
    assert project.edit([(f, lambda facts: facts["cell"].update(seed=77))]) == set()


def test_a_seed_measured_twice_counts_once(project):
    f = of_several_seeds(project)
    facts = next(b for g, b in cases(project) if g is f)[f["backend"]]
    other = next(o["cell"]["seed"] for o in facts if o is not f)
    changed = project.edit([(f, lambda facts: facts["cell"].update(seed=other))])
    number = detail_row(project, f)
    assert {("detail.csv", number, "n"), ("detail.csv", number, "cases")} <= changed
    assert {n for file, n, _ in changed if file == "detail.csv"} == {number}
    main = f"main-{f['machine']}-t{f['threads']}.md"
    assert {n for file, n, _ in changed if file == main} == {project.row(main, **row_of(f))}


def test_a_failed_seed_is_told_in_its_row_alone(project):
    f = of_several_seeds(project)
    changed = project.edit([(f, lambda facts: facts.update(status="diverged", reason="nan"))])
    main = f"main-{f['machine']}-t{f['threads']}.md"
    row = project.row(main, **row_of(f))
    assert (main, row, f["backend"]) in changed
    assert {n for file, n, _ in changed if file == main} == {row}
    assert {n for file, n, _ in changed if file == "detail.csv"} == {detail_row(project, f)}


def answers(project, question):
    found = [f for facts in getattr(project.results, question).values() for f in facts if f["status"] == "ok"]
    if not found:
        pytest.skip(f"no run of {question} is committed")
    return found


NETWORK_VALUES = [  # path, column of the table, column of the details
    (["speedup"], "speed-up", None),
    (["speedup_high"], "speed-up", None),
    (["verdict"], "speed-up", None),
    (["disk_bytes"], None, "disk_bytes"),
    (["resident_bytes"], None, "resident_bytes"),
    (["macs"], None, "macs"),
    (["latency_seconds"], None, None),
    (["arms", "dense", "seconds"], "dense ms", "seconds"),
    (["arms", "csr", "seconds"], "csr ms", "seconds"),
    (["arms", "csr_unpruned", "compile_seconds"], None, "compile_seconds"),
]


@pytest.mark.parametrize("seed", range(2))
def test_values_of_networks_change_their_cells_alone(project, seed):
    chance = random.Random(seed)
    edits, expected = [], set()
    for path, column, detail in NETWORK_VALUES:
        f = chance.choice(answers(project, "networks"))
        arm = path[1] if path[0] == "arms" else f["backend"]
        value = f["arms"][arm][path[-1]] if path[0] == "arms" else f[path[0]]
        edits.append((f, becomes(path, another(value, path[-1]))))
        file = f"networks-{f['machine']}-t{f['threads']}.md"
        model, batch = f["cell"]["model"], str(f["batch_size"])
        if column:
            expected.add((file, project.row(file, model=model, batch=batch, sparsity=percent(f["cell"])), column))
        if detail:
            row = project.row(
                "networks-detail.csv", machine=f["machine"], threads=str(f["threads"]), model=model, arm=arm,
                batch_size=batch, sparsity=f"{f['cell']['sparsity']:g}",
            )  # fmt: skip
            expected.add(("networks-detail.csv", row, detail))
    assert project.edit(edits) == expected


LAYER_VALUES = [  # field, columns of the table, column of the details
    ("latency_seconds", ["µs"], "latency_seconds"),
    ("baseline_seconds", ["dense µs"], "baseline_seconds"),
    ("useful_gflops", ["useful GFLOP/s"], "useful_gflops"),
    ("dense_equivalent_gflops", ["dense-equivalent"], "dense_equivalent_gflops"),
    ("roof_percent", ["roof"], "roof_percent"),
    ("speedup_low", ["speed-up"], "speedup_low"),
    ("kernel", ["kernel"], "kernel"),
    ("nonzeros", [], "nonzeros"),
]


def layer_cells(project, f, columns, detail):
    file, layer, batch = f"layers-{f['machine']}-t{f['threads']}.md", f["layer"]["id"], str(f["batch_size"])
    row = project.row(file, layer=layer, batch=batch, sparsity=percent(f["cell"]))
    number = project.row(
        "layers-detail.csv", machine=f["machine"], threads=str(f["threads"]), layer=layer, batch_size=batch,
        sparsity=f"{f['cell']['sparsity']:g}",
    )  # fmt: skip
    return {(file, row, column) for column in columns} | {("layers-detail.csv", number, detail)}


@pytest.mark.parametrize("seed", range(2))
def test_values_of_layers_change_their_cells_alone(project, seed):
    chance = random.Random(seed)
    edits, expected = [], set()
    for field, columns, detail in LAYER_VALUES:
        f = chance.choice([f for f in answers(project, "layers") if f[field] is not None])
        edits.append((f, becomes([field], "odd" if field == "kernel" else another(f[field], field))))
        expected |= layer_cells(project, f, columns, detail)
    f = chance.choice([f for f in answers(project, "layers") if f["roofs"]])
    edits.append((f, becomes(["roofs", "l2"], 1e6)))
    assert project.edit(edits) == expected | layer_cells(project, f, [], "roof_l2")


def test_a_layer_s_speed_up_moves_its_break_even(project):
    found = answers(project, "layers")
    lowest = min(f["cell"]["sparsity"] for f in found)
    f = next(f for f in found if f["cell"]["sparsity"] == lowest and f["speedup"] > 1)
    table = f"breakeven-{f['machine']}-t{f['threads']}.md"
    moved = (table, project.row(table, layer=f["layer"]["id"]), f"batch {f['batch_size']}")
    changed = project.edit([(f, becomes(["speedup"], 0.5))])
    assert changed == {moved} | layer_cells(project, f, ["speed-up"], "speedup")


def test_the_tables_of_unedited_runs_are_those_before(project):
    assert project.changed() == set()
    assert re.search(r"× \[", project.before[min(k for k in project.before if k[0] == "README.md" and k[2] == "dense")])
