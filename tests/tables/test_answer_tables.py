"""Tables of layers and networks from synthetic runs: what they say, what they keep apart, where break-even lies."""

import csv
import io
from dataclasses import replace

import pytest
from saved_answers import CONV, NETWORK, layer, network, run
from saved_facts import facts as grid_facts

from prunebench.answers import arm
from prunebench.journal import Journal
from prunebench.questions import LayerCase
from prunebench.runs import load_runs
from prunebench.shapes import linear
from prunebench.tables.files import write_tables
from prunebench.tables.layers import breakeven, breakeven_tables, layer_tables
from prunebench.tables.networks import network_tables
from prunebench.tables.rendering import FORMATS

HERE = ("aaaaaaaaaa", 1)


def rows(table):
    return table.to_dict("records")


def test_a_layer_s_row_reads_as_it_should():
    [row] = rows(layer_tables([run(layer())])[HERE])
    assert row == {
        "layer": "conv_64_64_3x3_at_32",
        "of": "resnet18_cifar, resnet50",
        "batch": "1",
        "sparsity": "90 %",
        "kernel": "csr, pixels, 4x4",
        "µs": "100",
        "dense µs": "300",
        "useful GFLOP/s": "60",
        "dense-equivalent": "600",
        "roof": "51 % of l1",
        "speed-up": "3.00× [2.70, 3.30] over dense",
    }


def test_a_doubtful_and_a_failed_layer_are_told():
    doubtful, failed = rows(
        layer_tables([
            run(layer(verdict="unstable"), layer(replace(CONV, sparsity=0.95), status="failed", reason="a | b")),
        ])[HERE]
    )  # fmt: skip
    assert doubtful["speed-up"] == "3.00× [2.70, 3.30] unstable over dense"
    assert failed["kernel"] == "failed: a / b"
    assert failed["speed-up"] == "–"


def test_a_network_s_row_reads_as_it_should():
    [row] = rows(network_tables([run(network())])[HERE])
    assert row == {
        "model": "resnet18_cifar",
        "sparsity": "90 %",
        "batch": "16",
        "speed-up": "5.00× [4.90, 5.10]",
        "over": "dense_channels_last",
        "dense ms": "~200",
        "dense_channels_last ms": "100",
        "torch_compile ms": "off: torch.compile took more than / 60 s",
        "csr_unpruned ms": "110",
        "csr ms": "20",
    }


def test_a_failed_network_and_one_without_an_arm_fill_their_row():
    small = replace(NETWORK, model="lenet5")
    other = network(small, arms={"csr": arm(seconds=0.001, blocks=20)})
    failed = network(replace(NETWORK, batch_size=64), "failed", reason="out of memory")
    first, second, third = rows(network_tables([run(failed, network(), other)])[HERE])
    assert (first["model"], first["dense ms"]) == ("lenet5", "–")
    assert second["batch"] == "16"
    assert (third["speed-up"], third["csr ms"]) == ("failed: out of memory", "–")


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], "–"),
        ([(0.7, 1.5), (0.9, 3.0)], "below 70 %"),
        ([(0.7, 0.5), (0.9, 0.9)], "none up to 90 %"),
        ([(0.9, 0.9)], "none at 90 %"),
        ([(0.9, 2.0), (0.7, 0.5), (0.8, 0.8)], "82 %"),  # 80 + 10 * 0.2 / 1.2
        ([(0.7, 0.5), (0.8, 1.5), (0.9, 0.9), (0.95, 2.0)], "75 %, slower again at 90 %"),
        ([(0.7, 1.0), (0.8, 1.5)], "70 %"),
    ],
)
def test_where_the_engine_breaks_even(points, expected):
    assert breakeven(points) == expected


def test_break_even_has_a_column_per_batch_size():
    cases = [layer(replace(CONV, sparsity=s, batch_size=b), v)
             for b, s, v in ((1, 0.7, 0.5), (1, 0.9, 1.5), (16, 0.9, 2.0))]  # fmt: skip
    small = layer(LayerCase(linear(800, 500), ("lenet5",), 0.7, 1), 0.5)
    table = rows(breakeven_tables([run(*cases, small)])[HERE])
    assert table == [
        {"layer": "linear_800_500", "of": "lenet5", "batch 1": "none at 70 %", "batch 16": "–"},
        {
            "layer": "conv_64_64_3x3_at_32",
            "of": "resnet18_cifar, resnet50",
            "batch 1": "80 %",
            "batch 16": "below 90 %",
        },
    ]


def test_an_unstable_layer_is_no_point_of_its_break_even():
    shaky = layer(replace(CONV, sparsity=0.8), 9.0, verdict="unstable")
    cases = [layer(replace(CONV, sparsity=s), v) for s, v in ((0.7, 0.5), (0.9, 1.5))]
    [found] = rows(breakeven_tables([run(*cases, shaky)])[HERE])
    assert found[f"batch {CONV.batch_size}"] == "80 %"


def test_the_latest_run_counts_and_machines_and_threads_stay_apart():
    old = run(layer(speedup=2.0), layer(replace(CONV, threads=2), 7.0))
    new = run(layer(speedup=4.0), time="2024-06-01T00:00:00")
    other = run(layer(speedup=9.0), machine="bbbbbbbbbb")
    for runs in ([old, new, other], [other, new, old]):
        found = layer_tables(runs)
        assert list(found) == [HERE, ("aaaaaaaaaa", 2), ("bbbbbbbbbb", 1)]
        assert [rows(t)[0]["speed-up"][:4] for t in found.values()] == ["4.00", "7.00", "9.00"]


def test_every_table_is_a_file_in_every_format(tmp_path):
    files, shown = write_tables([run(layer(), network())], tmp_path)
    kinds = ("layers", "breakeven", "networks")
    named = {f"{kind}-aaaaaaaaaa-t1{suffix}" for kind in kinds for suffix in FORMATS.values()}
    assert {f.name for f in files} == named | {"index.md", "layers-detail.csv", "networks-detail.csv"}
    assert rows(shown)[0]["model"] == "resnet18_cifar"
    index = (tmp_path / "index.md").read_text()
    assert "[networks-aaaaaaaaaa-t1](networks-aaaaaaaaaa-t1.md)" in index
    assert "main-" not in index
    assert "Break-even" in index
    before = {f: f.read_bytes() for f in files}
    write_tables([run(network(), layer())], tmp_path)
    assert {f: f.read_bytes() for f in files} == before


def test_they_lie_beside_the_grid_s_and_go_with_their_run(tmp_path):
    both = run(layer(), network(), grid=[grid_facts()])
    _, shown = write_tables([both], tmp_path)
    assert "accuracy %" in shown.columns
    names = {f.name for f in tmp_path.iterdir()}
    assert {"main-aaaaaaaaaa-t1.md", "networks-aaaaaaaaaa-t1.md", "detail.csv"} <= names
    write_tables([replace(both, answers=())], tmp_path)
    names = {f.name for f in tmp_path.iterdir()}
    assert not any(name.startswith(("layers", "networks", "breakeven")) for name in names)
    assert "Break-even" not in (tmp_path / "index.md").read_text()


def test_the_details_hold_what_was_measured(tmp_path):
    write_tables([run(layer(), network())], tmp_path)
    [one] = csv.DictReader(io.StringIO((tmp_path / "layers-detail.csv").read_text()))
    assert (float(one["roof_l1"]), float(one["useful_gflops"]), one["tile"]) == (117.0, 60.0, "4x4")
    arms = list(csv.DictReader(io.StringIO((tmp_path / "networks-detail.csv").read_text())))
    assert [row["arm"] for row in arms] == list(network()["arms"])
    assert arms[2]["status"] == "off"
    assert float(arms[-1]["seconds"]) == 0.02


def test_a_journal_of_a_killed_run_is_read_like_a_saved_one(tmp_path):
    journal = Journal(tmp_path, "killed", {"id": "aaaaaaaaaa"})
    for facts in (layer(), network(), grid_facts()):
        journal.write(facts)
    [found] = load_runs(tmp_path)
    assert (len(found.facts), len(found.answers), found.cases, found.complete) == (1, 2, 3, False)
    assert len(rows(layer_tables([found])[HERE])) == 1
