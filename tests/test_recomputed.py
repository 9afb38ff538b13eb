"""The committed tables and the README's, recomputed from the committed runs without the code that made them."""

import math
import re
import shutil
import statistics
from pathlib import Path

import pytest
from recomputing import (
    LABELS,
    agrees,
    apart_by_seed,
    check_breakeven,
    check_bytes_row,
    check_layer_row,
    check_main_row,
    check_network_row,
    comma,
    grid,
    latex,
    markdown,
    mean,
    network_points,
    percent,
    question,
    shared,
    web,
    well,
)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent


class Results:
    """A project's results: the runs, their tables, and the README beside them."""

    def __init__(self, root: Path) -> None:
        self.readme, self.runs, self.tables = root / "README.md", root / "results" / "runs", root / "results" / "tables"
        self.grid = grid(self.runs)
        self.networks, self.layers = question(self.runs, "networks"), question(self.runs, "layers")

    def table(self, kind, key):
        """A table by machine and thread count, as rows of text; the same in every format."""
        name = f"{kind}-{key[0]}-t{key[1]}"
        [rows] = markdown((self.tables / f"{name}.md").read_text())
        assert rows == comma(self.tables / f"{name}.csv")
        assert rows == web((self.tables / f"{name}.html").read_text())
        assert rows == latex((self.tables / f"{name}.tex").read_text())
        return rows

    def keys(self, kind):
        """Every (machine, threads) that has a table of a kind."""
        names = [re.fullmatch(rf"{kind}-(\w+)-t(\d+)\.md", f.name) for f in self.tables.iterdir()]
        return {(m[1], int(m[2])) for m in names if m}


def check_everything(results: Results) -> int:
    """Check every generated cell; returns how many rows there were."""
    checks = (check_main, check_bytes, check_detail, check_lines, check_networks, check_layers, check_readme)
    return sum(check(results) for check in checks)


def check_main(results):
    count = 0
    assert results.keys("main") == set(results.grid)
    for key, expected in results.grid.items():
        rows = results.table("main", key)
        found = {tuple(row[c] for c in LABELS): row for row in rows}
        assert len(found) == len(rows)
        assert set(found) == set(expected)
        for name, row in found.items():
            check_main_row(row, expected[name])
        count += len(rows)
    return count


def check_bytes(results):
    count = 0
    assert results.keys("bytes") == set(results.grid)
    for key, expected in results.grid.items():
        by_cell = {}
        for (*cell, batch), by_backend in expected.items():
            if any(map(well, by_backend.values())):
                by_cell.setdefault(tuple(cell), {})[int(batch)] = by_backend
        rows = results.table("bytes", key)
        assert {tuple(row[c] for c in LABELS[:-1]) for row in rows} == set(by_cell)
        assert len(rows) == len(by_cell)
        for row in rows:
            check_bytes_row(row, by_cell[tuple(row[c] for c in LABELS[:-1])])
        count += len(rows)
    return count


def check_detail(results):
    if not results.grid:
        return 0
    rows = comma(results.tables / "detail.csv")
    expected, whole = {}, {}
    for (machine, threads), table in results.grid.items():
        for label, by_backend in table.items():
            for backend, facts in by_backend.items():
                whole[id(facts)] = by_backend
                cell = facts[0]["cell"]
                key = (machine, str(threads), *label[:3], cell["criterion"], cell["granularity"], cell["scope"],
                       cell["schedule"], f"{cell['sparsity']:g}", label[-1], backend)  # fmt: skip
                expected[key] = facts
    names = ("machine", "threads", "dataset", "model", "recipe", "criterion", "granularity", "scope", "schedule",
             "sparsity", "batch_size", "backend")  # fmt: skip
    assert len(rows) == len(expected)
    for row in rows:
        facts = expected.pop(tuple(row[n] for n in names))
        ok = well(facts)
        assert (int(row["n"]), int(row["cases"]), row["status"]) == (
            len(ok), len(facts), shared(f["status"] for f in facts),
        )  # fmt: skip
        texts = ("verdict", "baseline", "collapse", "not_pruned")
        assert [row[k] for k in texts] == [shared(f.get(k) for f in ok) for k in texts]
        for column in set(row) - {*names, "n", "cases", "status", "verdict", "accuracy_std", "accuracy_apart", *texts}:
            check_number(row[column], mean(ok, column))
        gaps = apart_by_seed(whole.pop(id(facts))).get(row["backend"])
        check_number(row["accuracy_apart"], statistics.fmean(gaps) if gaps else None)
        check_number(row["accuracy_std"], statistics.stdev(f["accuracy"] for f in ok) if len(ok) > 1 else None)
    assert not expected
    return len(rows)


def check_lines(results):
    """The break-even sparsities of whole networks, interpolated in time per batch."""
    count = 0
    lines = {key: network_points(table) for key, table in results.grid.items()}
    assert results.keys("breakeven-networks") == {key for key, found in lines.items() if found}
    for key in results.keys("breakeven-networks"):
        rows = results.table("breakeven-networks", key)
        names = [c for c in LABELS if c != "sparsity"]
        assert len(rows) == len(lines[key])
        for row in rows:
            by_backend = lines[key].pop(tuple(row[c] for c in names))
            for backend in set(row) - {*names, "measured"}:
                check_breakeven(row[backend], by_backend.get(backend, []), in_time=True)
        count += len(rows)
    return count


def check_number(text, value):
    """A cell of a -detail.csv: nine digits of the value, nothing for none."""
    if value is None:
        assert text == ""
    else:
        assert math.isclose(float(text), value, rel_tol=1e-8, abs_tol=1e-12), (text, value)


def check_networks(results):
    count = 0
    assert results.keys("networks") == set(results.networks)
    details = comma(results.tables / "networks-detail.csv") if results.networks else []
    for key, facts in results.networks.items():
        expected = {(f["cell"]["model"], percent(f["cell"]), str(f["batch_size"])): f for f in facts}
        rows = results.table("networks", key)
        assert len(rows) == len(expected) == len(facts)
        for row in rows:
            check_network_row(row, expected[row["model"], row["sparsity"], row["batch"]])
        arms = {(*name, arm): (f, one) for name, f in expected.items() for arm, one in (f["arms"] or {}).items()}
        for row in (r for r in details if (r["machine"], int(r["threads"])) == key and r["arm"]):
            f, one = arms.pop((row["model"], percent(as_cell(row)), row["batch_size"], row["arm"]))
            assert (row["status"], row["baseline"], row["version"]) == (
                one["status"], f["baseline"] or "", one["version"] or "",
            )  # fmt: skip
            for name in ("relative_error", "seconds", "speedup", "speedup_low", "speedup_high", "blocks"):
                check_number(row[name], one[name])
            for name in ("nonzeros", "prunable", "macs", "disk_bytes", "dense_disk_bytes", "resident_bytes"):
                check_number(row[name], f[name] if row["arm"] == f["backend"] else None)
        assert not arms
        count += len(rows)
    return count


def as_cell(row):
    return {"sparsity": float(row["sparsity"])}


def check_layers(results):
    count = 0
    assert results.keys("layers") == results.keys("breakeven") == set(results.layers)
    details = comma(results.tables / "layers-detail.csv") if results.layers else []
    for key, facts in results.layers.items():
        expected = {(f["layer"]["id"], str(f["batch_size"]), percent(f["cell"])): f for f in facts}
        rows = results.table("layers", key)
        assert len(rows) == len(expected) == len(facts)
        for row in rows:
            check_layer_row(row, expected[row["layer"], row["batch"], row["sparsity"]])
        for row in (r for r in details if (r["machine"], int(r["threads"])) == key):
            f = expected.pop((row["layer"], row["batch_size"], percent(as_cell(row))))
            for name in ("latency_seconds", "baseline_seconds", "speedup", "useful_gflops", "roof_percent", "nonzeros"):
                check_number(row[name], f[name])
            for name, roof in (f["roofs"] or {}).items():
                check_number(row[f"roof_{name}"], roof)
        assert not expected
        check_breakeven_table(results.table("breakeven", key), facts)
        count += len(rows)
    return count


def check_breakeven_table(rows, facts):
    assert {row["layer"] for row in rows} == {f["layer"]["id"] for f in facts}
    for row in rows:
        for column in (c for c in row if c.startswith("batch ")):
            steady = [f for f in well(facts) if f["verdict"] != "unstable"]
            own = [f for f in steady if f["layer"]["id"] == row["layer"] and f"batch {f['batch_size']}" == column]
            sure = [f for f in own if f["verdict"] != "inconclusive"]
            points = [(f["cell"]["sparsity"], f["speedup"]) for f in sure]
            check_breakeven(row[column], None if own and not sure else points)


def check_readme(results):
    """Each generated block of the README is the rows of a table that its own words choose."""
    blocks = re.findall(r"<!-- table: (.*?) -->\n(.*?)<!-- end", results.readme.read_text(), re.DOTALL)
    count = 0
    for query, text in blocks:
        wanted = dict(pair.split("=") for pair in query.split())
        if wanted.get("kind") == "claims":
            count += check_claims(results, wanted["drop"].replace("_", " ").split(","), text)
            continue
        key = (wanted.pop("machine"), int(wanted.pop("threads")))
        dropped = wanted.pop("drop", "").replace("_", " ").split(",")
        controls = wanted.pop("controls", "false") == "true"
        kind = wanted.pop("kind", "main")
        shown = [
            {c: text for c, text in row.items() if c.replace("_", " ") not in dropped}
            for row in results.table(kind, key)  # each of them recomputed by its own check
            if (
                chosen(results.grid[key][tuple(row[c] for c in LABELS)], wanted, controls)
                if kind == "main"
                else all(row[column.replace("_", " ")] in values.split(",") for column, values in wanted.items())
            )
        ]
        assert shown, query
        if kind == "main":  # a block has no column of a backend that none of its rows ran
            unused = [c for c in shown[0] if all(row[c] == "–" for row in shown)]
            shown = [{c: text for c, text in row.items() if c not in unused} for row in shown]
        assert markdown(text) == [shown], query
        count += len(shown)
    return count


def check_claims(results, dropped, text):
    """They are those of results/README.md, which test_recomputed_claims.py recomputes."""
    rows = markdown((results.readme.parent / "results" / "README.md").read_text())[0]
    shown = [{c: re.sub(r"\[(.*)\]\(.*\)", r"\1", v) for c, v in row.items() if c not in dropped} for row in rows]
    assert markdown(text) == [shown]
    return len(shown)


def chosen(by_backend, wanted, controls):
    [f, *_] = next(iter(by_backend.values()))
    cell = f["cell"]
    if not controls and cell["scope"].startswith("like"):
        return False
    assert "backend" not in wanted, "a block of some backends is not recomputed here"
    values = {**cell, "recipe": cell["recipe"]["name"], "batch_size": f["batch_size"]}
    spared = ("criterion", "granularity", "scope", "schedule", "sparsity") if cell["criterion"] == "none" else ()
    return all(str(values[k]) in v.split(",") for k, v in wanted.items() if k not in spared)


def test_the_committed_tables_are_what_the_committed_runs_say():
    results = Results(ROOT)
    assert check_everything(results) > 20
    assert results.grid, "no run of the grid is committed"


def copied(folder: Path) -> Path:
    shutil.copytree(ROOT / "results", folder / "results")
    shutil.copy(ROOT / "README.md", folder)
    return folder


def in_latex(text: str) -> str:
    return re.sub(r"([%_])", r"\\\1", text).replace("~", r"\textasciitilde{}")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("main", r"^\d.*× \["),  # a speed-up
        ("main", r"\(n="),  # an accuracy
        ("main", r"\d of \d"),  # nonzeros
        ("bytes", r"fewer"),
        ("bytes", r"smaller"),
        ("bytes", r"^[\d,.]+ kB$"),  # in memory
        ("networks", r"× \["),
        ("networks", r"^0?\.?\d+\.\d+$"),  # ms
        ("layers", r"× \["),
        ("layers", r" of l1"),  # a share of a roof
        ("breakeven", r"^(below )?[1-9]\d* %"),
        ("breakeven-networks", r"^[1-9]\d* %"),
    ],
)
def test_a_digit_changed_in_every_file_is_found(tmp_path, kind, pattern):
    """The recomputation can fail: one cell another in all formats and in the README alike, and it does."""
    root = copied(tmp_path)
    cells = [
        cell
        for path in sorted(root.rglob(f"{kind}-[0-9a-f]*-t*.md"))
        for row in markdown(path.read_text())[0]
        for name, cell in row.items()
        if name not in LABELS and re.search(pattern, cell)
    ]
    if not cells:
        pytest.skip(f"no such cell of {kind} is committed")
    cell = cells[-1]
    changed = re.sub(r"[1-9]", lambda m: str(int(m[0]) % 9 + 1), cell, count=1)
    assert changed != cell
    for path in [root / "README.md", *root.rglob(f"{kind}-[0-9a-f]*-t*")]:
        if path.suffix != ".json":
            old, new = (in_latex(t) if path.suffix == ".tex" else t for t in (cell, changed))
            path.write_text(path.read_text().replace(old, new))
    with pytest.raises(AssertionError):
        check_everything(Results(root))


@pytest.mark.parametrize("name", ["detail", "networks-detail", "layers-detail"])
def test_a_digit_changed_in_the_details_is_found(tmp_path, name):
    path = copied(tmp_path) / "results" / "tables" / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"no {name}.csv is committed")
    speedup = comma(path)[-1]["speedup"]
    path.write_text(f",{float(speedup) * 1.000001:.9g},".join(path.read_text().rsplit(f",{speedup},", 1)))
    with pytest.raises(AssertionError):
        check_everything(Results(tmp_path))


@pytest.mark.parametrize(
    ("shown", "value", "significant", "right"),
    [("98.31", 98.3149, None, True), ("98.31", 98.316, None, False), ("1,067.0", 1066.976, None, True),
     ("0.56", 0.5604, 3, True), ("0.56", 0.561, 3, False), ("7e+03", 7000.4, 3, True)],
)  # fmt: skip
def test_rounding_is_judged_by_the_last_digit(shown, value, significant, right):
    assert agrees(shown, value, significant) == right
