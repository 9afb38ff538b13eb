"""Tables from synthetic runs: same runs, same bytes; one value changed, one cell changed; nothing ever mixed."""

import csv
import io
import math
import re
from dataclasses import replace

import pytest
from saved_facts import CONTROL, PRUNED, facts, grid, run

from prunebench.cell import Recipe
from prunebench.controls import twins
from prunebench.errors import UsageError
from prunebench.tables.files import write_tables
from prunebench.tables.grid import FORMATS, bytes_table, detail, frame, main_table, render


def written(runs, folder):
    write_tables(runs, folder)
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def rows(table):
    return table.to_dict("records")


def main(*runs, machine="aaaaaaaaaa", threads=1):
    return rows(main_table(detail(frame(runs)), machine, threads))


def test_the_same_runs_give_the_same_bytes(tmp_path):
    assert written([run(*grid())], tmp_path / "a") == written([run(*grid())], tmp_path / "b")
    before = written([run(*grid())], tmp_path / "a")
    assert before == written([run(*reversed(grid()))], tmp_path / "c")
    named = {f"{kind}-aaaaaaaaaa-t1{suffix}" for kind in ("main", "bytes") for suffix in FORMATS.values()}
    assert set(before) == {"detail.csv", "index.md", *named}


@pytest.mark.parametrize(
    ("field", "value", "column"),
    [
        ("accuracy", 0.8, "accuracy %"),
        ("speedup_high", 2.2, "csr"),
        ("latency_seconds", 0.002, "csr"),
        ("disk_bytes", 10, "bytes on disk"),
        ("nonzeros", 7, "nonzeros"),
    ],
)
def test_one_value_changes_only_its_cell(field, value, column):
    def table(**changes):
        return main(run(facts(PRUNED, **changes), facts(CONTROL)))

    before, after = table(), table(**{field: value})
    assert len(before) == len(after) == 2
    changed = {(i, k) for i in range(2) for k in before[i] if before[i][k] != after[i][k]}
    assert changed == {(1, column)}


def test_the_bytes_table_counts_by_hand():
    masked = facts(PRUNED, "masked", resident_bytes=5_000_000)
    [row] = rows(bytes_table(detail(frame([run(facts(PRUNED), masked)])), "aaaaaaaaaa", 1))
    # 431,080 parameters, of which 43,050 of the 430,500 prunable ones and the 580 others are left: 9.88 times fewer.
    assert row == {
        "dataset": "digits",
        "model": "lenet5",
        "recipe": "brief",
        "pruned by": "l1 weight global agp",
        "sparsity": "90 %",
        "parameters": "9.9× fewer",
        "dense file": "1,750.0 kB",
        "bitmask file": "250.0 kB (7.0× smaller)",
        "masked in memory": "5,000.0 kB",
        "csr in memory": "300.0 kB",
    }


def test_the_main_table_reads_as_it_should():
    [control, row] = main(
        run(facts(PRUNED), facts(CONTROL, speedup=1.0, verdict="inconclusive"), facts(PRUNED, "dense"))
    )
    assert row == {
        "dataset": "digits",
        "model": "lenet5",
        "pruned by": "l1 weight global agp",
        "sparsity": "90 %",
        "batch": "64",
        "recipe": "brief",
        "accuracy %": "90.00 (n=1)",
        "nonzeros": "43,050 of 430,500",
        "bytes on disk": "250.0 kB (7.0× smaller)",
        "over": "dense",
        "dense": "1.5 ms, 2.00× [1.90, 2.10]",
        "csr": "1.5 ms, 2.00× [1.90, 2.10]",
    }
    assert control["pruned by"] == "unpruned"
    assert control["dense"] == "–"
    assert control["csr"] == "1.5 ms, 1.00× [1.90, 2.10] inconclusive"
    assert list(row).index("dense") < list(row).index("csr")


def test_controls_stand_below_the_row_whose_proportions_they_have():
    l2 = replace(PRUNED, criterion="l2")
    cells = [
        CONTROL,
        PRUNED,
        *twins(PRUNED),
        l2,
        *twins(l2),
        replace(l2, sparsity=0.5),
        *twins(replace(l2, sparsity=0.5)),
    ]
    shown = [(row["pruned by"], row["sparsity"]) for row in main(run(*(facts(c) for c in reversed(cells))))]
    as_l2 = "same proportions as l2 weight global agp"
    assert shown == [
        ("unpruned", "0 %"),
        ("l1 weight global agp", "90 %"),
        ("control: random, same proportions as l1 weight global agp", "90 %"),
        ("l2 weight global agp", "50 %"),
        (f"control: l1, {as_l2}", "50 %"),
        (f"control: random, {as_l2}", "50 %"),
        ("l2 weight global agp", "90 %"),
        (f"control: l1, {as_l2}", "90 %"),
        (f"control: random, {as_l2}", "90 %"),
    ]


def test_controls_change_nothing_about_the_other_rows():
    without = main(run(facts(PRUNED), facts(CONTROL)))
    rows_ = main(run(facts(PRUNED), facts(CONTROL), *(facts(c, accuracy=0.1) for c in twins(PRUNED))))
    assert [row for row in rows_ if "control:" not in row["pruned by"]] == without
    [csv_row] = rows(detail(frame([run(facts(twins(PRUNED)[0]))])))
    assert csv_row["scope"] == "like:criterion=l1:scope=global"


def test_mean_and_sample_deviation_over_seeds():
    accuracies, speedups = [0.90, 0.92, 0.97], [1.0, 2.0, 4.0]
    seeds = [
        facts(replace(PRUNED, seed=i), accuracy=a, speedup=s)
        for i, (a, s) in enumerate(zip(accuracies, speedups, strict=True))
    ]
    [row] = rows(detail(frame([run(*seeds)])))
    mean = sum(accuracies) / 3
    deviation = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / 2)
    assert (row["n"], row["accuracy"], row["accuracy_std"]) == (3, pytest.approx(mean), pytest.approx(deviation))
    assert row["speedup"] == pytest.approx(2.0)  # geometric
    [shown] = main(run(*seeds))
    assert shown["accuracy %"] == "93.00 ± 3.61 (n=3)"


def test_one_seed_has_no_deviation():
    assert "±" not in main(run(facts()))[0]["accuracy %"]


def test_seeds_that_disagree_have_no_verdict():
    [row] = rows(detail(frame([run(facts(), facts(replace(PRUNED, seed=1), verdict="slower"))])))
    assert row["verdict"] == "mixed: faster slower"
    assert main(run(facts(), facts(replace(PRUNED, seed=1), verdict="slower")))[0]["csr"].endswith(
        "mixed: faster slower"
    )


@pytest.mark.parametrize("flip", [False, True])
def test_the_latest_run_counts(flip):
    runs = [
        run(facts(accuracy=0.1), name="zz", time="2024-01-01T00:00:00"),
        run(facts(accuracy=0.7), name="aa", time="2024-06-01T00:00:00"),
    ]
    assert [r["accuracy %"] for r in main(*(reversed(runs) if flip else runs))] == ["70.00 (n=1)"]


def test_a_later_run_replaces_only_what_it_measured_again():
    old = run(facts(accuracy=0.1), facts(backend="dense", accuracy=0.2), time="2024-01-01T00:00:00")
    new = run(facts(accuracy=0.7), time="2024-06-01T00:00:00")
    assert sorted(frame([old, new])["accuracy"]) == [0.2, 0.7]


def test_another_recipe_of_the_same_name_is_no_further_seed():
    other = replace(PRUNED, recipe=replace(PRUNED.recipe, epochs=99))
    found = main(run(facts(), facts(other, accuracy=0.5)))
    assert len({r["recipe"] for r in found}) == 2
    assert all(re.fullmatch(r"brief_[0-9a-f]{6}", r["recipe"]) for r in found)
    assert sorted(r["accuracy %"] for r in found) == ["50.00 (n=1)", "90.00 (n=1)"]


def test_another_recipe_is_another_row():
    other = replace(PRUNED, recipe=Recipe(name="long", epochs=99))
    assert [r["recipe"] for r in main(run(facts(), facts(other)))] == ["brief", "long"]


def test_machines_and_thread_counts_never_share_a_table(tmp_path):
    runs = [
        run(facts(), facts(threads=4, latency_seconds=0.5)),
        run(facts(latency_seconds=7.0), machine="bbbbbbbbbb", time="2024-06-01T00:00:00"),
    ]
    names = set(written(runs, tmp_path))
    tables = [("aaaaaaaaaa", 1, "1.5 ms"), ("aaaaaaaaaa", 4, "500 ms"), ("bbbbbbbbbb", 1, "7e+03 ms")]
    for machine, threads, latency in tables:
        assert f"main-{machine}-t{threads}.md" in names
        [row] = main(*runs, machine=machine, threads=threads)
        assert row["csr"].startswith(latency)
        text = (tmp_path / f"main-{machine}-t{threads}.md").read_text()
        assert [other for _, _, other in tables if other in text] == [latency]
    assert len([n for n in names if n.startswith("main-")]) == 3 * len(FORMATS)


def test_the_table_handed_back_is_the_last_measured(tmp_path):
    runs = [run(facts(accuracy=0.5), machine="bbbbbbbbbb", time="2025-01-01"), run(facts(), time="2024-01-01")]
    files, table = write_tables(runs, tmp_path)
    assert rows(table)[0]["accuracy %"] == "50.00 (n=1)"
    assert sorted(files) == sorted(tmp_path.iterdir())


def test_divergence_is_shown():
    [row] = main(run(facts(status="diverged", reason="the loss is nan")))
    assert (row["accuracy %"], row["csr"]) == ("diverged", "diverged")
    assert (row["nonzeros"], row["bytes on disk"]) == ("–", "–")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ""),
        ({"collapse": "layer collapse: conv1.weight"}, " (layer collapse)"),
        ({"not_pruned": "not pruned: conv1.weight stay dense"}, " (some layers left dense)"),
        ({"collapse": "c", "not_pruned": "n"}, " (layer collapse; some layers left dense)"),
    ],
)
def test_what_pruning_warned_of_stands_beside_the_nonzeros(said, words):
    [row] = main(run(facts(**said)))
    assert row["nonzeros"] == f"43,050 of 430,500{words}"


def test_a_run_from_before_a_fact_was_known_is_read():
    old = facts()
    del old["not_pruned"]
    [row] = main(run(old))
    assert row["nonzeros"] == "43,050 of 430,500"
    assert [r["not_pruned"] for r in rows(detail(frame([run(old), run(facts(PRUNED, "dense"))])))] == ["", ""]


def test_one_diverged_seed_lowers_n_and_shows_in_the_details():
    both = run(facts(), facts(replace(PRUNED, seed=1), status="diverged"))
    [row] = rows(detail(frame([both])))
    assert (row["n"], row["status"]) == (1, "mixed: diverged ok")
    assert row["accuracy"] == 0.9


def test_stale_tables_go_and_strangers_stay(tmp_path):
    written([run(facts(), machine="bbbbbbbbbb")], tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    names = set(written([run(facts())], tmp_path))
    assert "notes.md" in names
    assert not any("bbbbbbbbbb" in name for name in names)
    assert {n for n in names if n.startswith("main-")} == {f"main-aaaaaaaaaa-t1{s}" for s in FORMATS.values()}


def test_html_is_escaped():
    cell = replace(PRUNED, dataset="imagefolder:a<script>alert(1)</script>&b")
    text = render(main_table(detail(frame([run(facts(cell))])), "aaaaaaaaaa", 1), "html")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "&amp;b" in text


def test_csv_holds_what_was_measured(tmp_path):
    written([run(*grid())], tmp_path)
    [control, *_] = found = list(csv.DictReader(io.StringIO((tmp_path / "detail.csv").read_text())))
    assert len(found) == 6
    assert control["criterion"] == "none"
    assert {r["backend"] for r in found} == {"csr", "dense", "masked"}
    assert all(float(r["speedup"]) == 2.0 and int(float(r["macs"])) == 1000 for r in found)


def test_github_and_latex_hold_every_row():
    table = main_table(detail(frame([run(*grid())])), "aaaaaaaaaa", 1)
    lines = render(table, "github").splitlines()
    assert len(lines) == 2 + 2
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    assert "90 \\%" in render(table, "latex")


def test_an_unknown_format_lists_the_known():
    with pytest.raises(UsageError, match=r"'pdf'.*csv, github, html, latex"):
        render(main_table(detail(frame([run(facts())])), "aaaaaaaaaa", 1), "pdf")


@pytest.mark.parametrize("runs", [[], [run()]])
def test_no_results_say_what_to_run(runs, tmp_path):
    with pytest.raises(UsageError, match="pytest benchmarks --benchmark-save=NAME"):
        write_tables(runs, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_the_index_names_machines_and_runs(tmp_path):
    written([run(facts(), name="night", complete=False)], tmp_path)
    text = (tmp_path / "index.md").read_text()
    assert "[main-aaaaaaaaaa-t1](main-aaaaaaaaaa-t1.md)" in text
    assert "cut off" in text
    assert "night" in text


def test_a_backend_with_an_accuracy_of_its_own_is_named():
    [row] = main(run(facts(PRUNED, "dense"), facts(PRUNED, "csr", accuracy=0.1)))
    assert row["accuracy %"] == "90.00 (n=1), csr 10.00"


def test_other_seeds_are_no_other_backend():
    """A backend that ran other seeds has another mean accuracy, and is right all the same."""
    seeds = [facts(replace(PRUNED, seed=n), accuracy=a) for n, a in enumerate((0.90, 0.92, 0.97))]
    [row] = main(run(*seeds, facts(PRUNED, "dense", accuracy=0.90), facts(PRUNED, "masked", accuracy=0.90)))
    assert row["accuracy %"] == "93.00 ± 3.61 (n=3)"
    assert row["dense"].endswith("] (n=1)")
    assert row["csr"].endswith("]")
    [row] = main(run(*seeds, facts(PRUNED, "dense", accuracy=0.90), facts(PRUNED, "masked", accuracy=0.80)))
    assert row["accuracy %"] == "93.00 ± 3.61 (n=3), masked 80.00"


def test_the_dense_ways_that_speed_ups_are_over_are_named():
    other = facts(replace(PRUNED, seed=8), baseline="dense_channels_last")
    assert [r["over"] for r in main(run(facts(PRUNED)))] == ["dense"]
    assert [r["over"] for r in main(run(facts(PRUNED), other))] == ["dense dense_channels_last"]
    assert [r["over"] for r in main(run(facts(PRUNED, status="diverged")))] == ["–"]


def test_both_tables_count_the_same_seeds():
    more = [facts(replace(PRUNED, seed=n), disk_bytes=300_000) for n in range(1, 4)]
    found = detail(frame([run(facts(PRUNED, "dense"), facts(PRUNED), *more)]))
    [row], [of_bytes] = rows(main_table(found, "aaaaaaaaaa", 1)), rows(bytes_table(found, "aaaaaaaaaa", 1))
    assert row["bytes on disk"] == of_bytes["bitmask file"] == "287.5 kB (6.1× smaller)"


def test_a_lost_seed_is_told():
    [row] = main(run(facts(PRUNED), facts(replace(PRUNED, seed=8), status="diverged")))
    assert row["accuracy %"] == "90.00 (n=1 of 2, mixed: diverged ok)"
    assert row["csr"].endswith("(n=1 of 2)")


def test_a_failed_backend_does_not_hide_the_others():
    [row] = main(run(facts(PRUNED, "dense", status="failed"), facts(PRUNED, "csr")))
    assert row["accuracy %"] == "90.00 (n=1)"
    assert row["dense"] == "failed"
