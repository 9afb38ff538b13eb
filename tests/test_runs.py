"""Saved runs read back: whole, cut off, chosen by name, and files that are none."""

import json

import pytest

from prunebench.cell import Case, Cell
from prunebench.errors import UsageError
from prunebench.facts import facts_of
from prunebench.journal import Journal
from prunebench.machine import identity
from prunebench.runs import all_and_chosen, load_runs, read_run, run_files, told_apart

CASE = Case(Cell("digits", "lenet5", "l1", "weight", "global", "agp", 0.9, 3), "csr", 64)
MACHINE = {"id": "0123456789", "cpu": "some CPU"}


def facts(**values):
    return facts_of(CASE, 1, **values)


def saved(path, *rows, untimed=(), time="2024-01-01T00:00:00", machine=MACHINE):
    content = {
        "machine_info": {"prunebench": machine},
        "datetime": time,
        "benchmarks": [{"name": "x", "extra_info": row} for row in rows],
    }
    if untimed:
        content["prunebench"] = {"untimed": list(untimed)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_saved_run(tmp_path):
    run = read_run(saved(tmp_path / "0003_quick.json", facts(accuracy=0.5), {}, untimed=[facts(macs=7)]))
    assert (run.name, run.datetime, run.machine, run.complete) == ("quick", "2024-01-01T00:00:00", MACHINE, True)
    assert [f["accuracy"] for f in run.facts] == [0.5, None]
    assert run.facts[1]["macs"] == 7


def test_a_journal_is_a_run_that_is_not_complete(tmp_path):
    journal = Journal(tmp_path, "quick-two", MACHINE)
    journal.write(facts(accuracy=0.25))
    journal.write(facts(accuracy=0.5))
    run = read_run(journal.path)
    assert (run.name, run.machine, run.complete) == ("quick-two", MACHINE, False)
    assert [f["accuracy"] for f in run.facts] == [0.25, 0.5]


def test_a_journal_cut_in_its_last_line_is_read_up_to_there(tmp_path):
    journal = Journal(tmp_path, "quick", MACHINE)
    for accuracy in (0.25, 0.5):
        journal.write(facts(accuracy=accuracy))
    content = journal.path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start, len(content) - 1):
        journal.path.write_bytes(content[:cut])
        assert [f["accuracy"] for f in read_run(journal.path).facts] == [0.25], cut
    for cut in range(start):
        journal.path.write_bytes(content[:cut])
        assert len(read_run(journal.path).facts) <= 1


def test_a_journal_damaged_in_the_middle_is_refused(tmp_path):
    journal = Journal(tmp_path, "quick", MACHINE)
    for _ in range(2):
        journal.write(facts())
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join([lines[0], lines[1][:50], lines[2]]) + "\n")
    with pytest.raises(UsageError, match="is not a saved run"):
        read_run(journal.path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"benchmarks": []}',
        '{"benchmarks": 3, "datetime": "x", "machine_info": {}}',
        '{"benchmarks": [{"extra_info": {"schema": 1}}], "datetime": "x", "machine_info": {}}',
        '{"benchmarks": [{"extra_info": {"schema": 1, "cell": 3, "backend": "csr", "batch_size": 1}}], '
        '"datetime": "x", "machine_info": {}}',
        "\x00\x01",
    ],
)
def test_a_file_that_is_no_run_is_one_line(tmp_path, content):
    path = tmp_path / "0001_bad.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"0001_bad\.json is not a saved run") as error:
        read_run(path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    path = tmp_path / "0001_bad.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a saved run"):
        read_run(path)


def test_another_schema_is_refused_with_the_remedy(tmp_path):
    path = saved(tmp_path / "0001_old.json", {**facts(), "schema": 0})
    with pytest.raises(UsageError, match=r"schema 0.*run the benchmark again"):
        read_run(path)


def test_facts_that_lost_their_schema_are_not_passed_over(tmp_path):
    path = saved(tmp_path / "0001_old.json", {k: v for k, v in facts().items() if k != "schema"})
    with pytest.raises(UsageError, match=r"schema None.*run the benchmark again"):
        read_run(path)


def test_one_id_with_two_descriptions_is_two_machines(tmp_path):
    """Whoever edits a version, a build or a CPU in a file makes a machine of its own, not a column of two."""
    about = {**MACHINE, "engine": {"isa": "avx2", "build": "1"}, "versions": {"torch": "2", "numpy": "1"}}
    about["id"] = identity(about)
    others = [{**about, "cpu": "another"}, {**about, "engine": {"isa": "avx2", "build": "2"}},
              {**about, "versions": {"torch": "3", "numpy": "1"}}]  # fmt: skip
    turned = {**about, "versions": {"numpy": "1", "torch": "2"}}
    for number, machine in enumerate([*others, about, turned]):
        saved(tmp_path / f"000{number}_run{number}.json", facts(), machine=machine, time=f"2024-01-0{number + 1}")
    ids = [run.machine["id"] for run in load_runs(tmp_path)]
    assert ids[3:] == [about["id"]] * 2
    assert len({*ids}) == 4
    every, named = all_and_chosen(tmp_path, ["run1"])
    assert ([r.machine["id"] for r in every], [r.machine["id"] for r in named]) == (ids, ids[1:2])
    assert load_runs(tmp_path, ["run1"])[0].machine["id"] == about["id"]  # alone it is mixed with nothing
    assert told_apart(load_runs(tmp_path)) == load_runs(tmp_path)


def test_an_id_that_is_nobody_s_hash_stays_with_the_earliest(tmp_path):
    for number, cpu in ((1, "late"), (0, "early"), (2, "early")):
        machine = {**MACHINE, "cpu": cpu}
        saved(tmp_path / f"000{number}_run.json", facts(), machine=machine, time=f"2024-01-0{number + 1}")
    first, other, last = (run.machine["id"] for run in load_runs(tmp_path))
    assert first == last == MACHINE["id"] != other


@pytest.fixture
def folder(tmp_path):
    saved(tmp_path / "runs" / "Linux-CPython" / "0001_quick.json", facts(accuracy=0.1))
    saved(tmp_path / "runs" / "Linux-CPython" / "0002_paper.json", facts(accuracy=0.2))
    saved(tmp_path / "runs" / "Linux-CPython" / "0003_kernels.json", {"rows": 3})
    Journal(tmp_path / "runs" / "Linux-CPython", "night", MACHINE).write(facts(accuracy=0.3))
    (tmp_path / "runs" / "notes.txt").write_text("not a run")
    return tmp_path / "runs"


def found(runs):
    return [(r.name, r.facts[0]["accuracy"]) for r in runs]


def test_all_runs_with_facts_in_a_fixed_order(folder):
    assert found(load_runs(folder)) == [("quick", 0.1), ("paper", 0.2), ("night", 0.3)]
    assert len(run_files(folder)) == 4


@pytest.mark.parametrize("text", ["paper", "0002", "0002_paper"])
def test_a_run_by_name_or_number(folder, text):
    assert found(load_runs(folder, [text])) == [("paper", 0.2)]


def test_a_run_by_path_and_no_run_twice(folder):
    path = folder / "Linux-CPython" / "0001_quick.json"
    assert found(load_runs(folder, [str(path), "night"])) == [("quick", 0.1), ("night", 0.3)]
    assert found(load_runs(folder, ["quick", "0001"])) == [("quick", 0.1)]


def test_an_unknown_run_lists_the_known_ones(folder):
    with pytest.raises(UsageError, match=r"'weekly'.*kernels, night, paper, quick") as error:
        load_runs(folder, ["quick", "weekly"])
    assert "\n" not in str(error.value)


def test_no_folder_no_runs(tmp_path):
    assert load_runs(tmp_path / "none") == []
    with pytest.raises(UsageError, match="known: none"):
        load_runs(tmp_path / "none", ["quick"])
