"""Two runs compared: numbers worked out by hand, what is refused, what is missing, and real pytest-benchmark files."""

import csv
import io
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from running import command
from running import prunebench as prunebench_command
from saved_answers import NETWORK, layer
from saved_answers import run as answers_run
from saved_facts import CONTROL, PRUNED, facts, run

from prunebench import cli
from prunebench.answers import answer, arm
from prunebench.cell import Recipe
from prunebench.comparison.cases import cases_of, combined
from prunebench.comparison.judging import compare_runs, mean_change, mean_interval, slower_than
from prunebench.comparison.tables import comparison_text
from prunebench.errors import UsageError
from prunebench.tables.rendering import FORMATS


def compared(a, b, **options):
    return compare_runs(cases_of(a, "old"), cases_of(b, "new"), **options)


def speed(speedup, low=None, high=None, **values):
    low, high = low or speedup / 1.01, high or speedup * 1.01
    return {"speedup": speedup, "speedup_low": low, "speedup_high": high, **values}


def only_pair(a, b, **options):
    [pair] = compared(a, b, **options).pairs
    return pair


@pytest.fixture
def prunebench(capsys):
    """The command without a process of its own: (exit code, what it printed, its errors)."""

    def call(*arguments):
        code = cli.main(list(map(str, arguments)))
        return SimpleNamespace(returncode=code, **capsys.readouterr()._asdict())

    return call


def text_of(*runs, format="github", **options):
    return comparison_text(compared(*runs, **options), format)


# Numbers by hand


def test_intervals_combine_in_log_space_by_hand():
    # 2 [1.9, 2.1] and 3 [2.7, 3.6]: the low end of the change has B's lower and A's upper half-width, and so on.
    pair = only_pair(run(facts(**speed(2.0, 1.9, 2.1))), run(facts(**speed(3.0, 2.7, 3.6))))
    low, middle, high = pair.log_change
    assert middle == pytest.approx(math.log(1.5))
    assert low == pytest.approx(math.log(1.5) - math.sqrt(math.log(3 / 2.7) ** 2 + math.log(2.1 / 2) ** 2))
    assert high == pytest.approx(math.log(1.5) + math.sqrt(math.log(3.6 / 3) ** 2 + math.log(2 / 1.9) ** 2))
    assert [round(math.exp(v), 3) for v in pair.log_change] == [1.336, 1.5, 1.813]
    assert pair.verdict == "faster"


def test_swapping_the_runs_turns_the_change_around():
    a, b = run(facts(**speed(2.0, 1.9, 2.3))), run(facts(**speed(3.0, 2.7, 3.1)))
    there, back = only_pair(a, b).log_change, only_pair(b, a).log_change
    assert there == pytest.approx([-v for v in reversed(back)])


def test_half_widths_of_equal_runs_add_as_squares():
    assert combined((-0.3, 0.0, 0.4), (-0.3, 0.0, 0.4)) == pytest.approx((-0.5, 0.0, 0.5))


@pytest.mark.parametrize(
    ("speedup", "verdict"),
    [(2.2, "faster"), (2.0, "inconclusive"), (1.8, "slower"), (2.04, "inconclusive"), (2.06, "faster")],
)
def test_a_verdict_needs_an_interval_that_clears_one_percent(speedup, verdict):
    # Both intervals are ±1 %, the change's is ±1.42 %: 2.04 would be faster without the margin.
    assert only_pair(run(facts(**speed(2.0))), run(facts(**speed(speedup)))).verdict == verdict


def test_the_machine_that_slowed_down_as_a_whole_changed_nothing():
    slow = facts(**speed(2.0), latency_seconds=0.0030, baseline_seconds=0.006)
    result = compared(run(facts(**speed(2.0), latency_seconds=0.0015)), run(slow))
    assert result.pairs[0].verdict == "inconclusive"
    assert "1.5 → 3 (0.50×)" in comparison_text(result, "github")  # the raw seconds stand beside it


def test_controls_that_moved_widen_the_margin():
    """Dense against dense should not have changed; what it did all the same no other case may claim as its own."""
    old = run(facts(**speed(2.0)), facts(backend="dense", **speed(1.0)))
    new = [run(facts(**speed(2.2)), facts(backend="dense", **speed(by))) for by in (1.0, 1.15)]
    calm, moved = (compared(old, one) for one in new)
    assert [p.verdict for p in calm.pairs if p.group == "csr"] == ["faster"]
    assert [p.verdict for p in moved.pairs] == ["inconclusive", "inconclusive"]
    half = math.sqrt(2) * math.log(1.01)
    assert moved.margin == pytest.approx(math.log(1.15) - half)
    assert (calm.margin, calm.controls) == (math.log1p(0.01), 1)


def test_geometric_mean_and_its_bootstrap():
    cells = [replace(PRUNED, seed=n) for n in range(3)]
    old = run(*(facts(c, **speed(2.0)) for c in cells))
    new = run(*(facts(c, **speed(2.0 * by)) for c, by in zip(cells, (2.0, 4.0, 0.5), strict=True)))
    result = compared(old, new)
    low, middle, high = mean_change(result.both)
    assert math.exp(middle) == pytest.approx(4 ** (1 / 3))  # (2 · 4 · ½)^⅓
    assert math.exp(low) == pytest.approx(0.5)  # all three drawn the slowest: 1 of 27 resamples, more than 2.5 %
    assert math.exp(high) == pytest.approx(4.0)
    assert mean_interval([0.7])[1] == 0.7
    assert all(math.isnan(mean_interval([0.7])[i]) for i in (0, 2))
    assert mean_interval([]) is None


def test_unstable_cases_are_no_part_of_the_mean():
    other = replace(PRUNED, seed=1)
    old = run(facts(**speed(2.0)), facts(other, **speed(2.0)))
    new = run(facts(**speed(4.0)), facts(other, **speed(40.0), verdict="unstable"))
    result = compared(old, new)
    assert {p.verdict for p in result.pairs} == {"faster", "unstable"}
    assert math.exp(mean_change(result.both)[1]) == pytest.approx(2.0)


def test_accuracy_is_counted_once_per_cell_and_backend():
    cells = [(PRUNED, 0.9, 0.91), (replace(PRUNED, seed=1), 0.8, 0.77)]
    old, new = (run(*(facts(c[0], batch=b, accuracy=c[i]) for c in cells for b in (1, 64))) for i in (1, 2))
    assert "-1.00 [-3.00, +1.00]" in text_of(old, new)  # (+1 − 3) / 2
    rows = [line for line in text_of(old, new, accuracy=True).splitlines() if "seed" in line]
    assert len(rows) == 2
    assert "80.00 → 77.00 (-3.00)" in rows[0]  # the largest change first
    assert "90.00 → 91.00 (+1.00)" in rows[1]
    assert "change" not in text_of(old, new, accuracy=True).splitlines()[-4]


# What is shown, in which order


def test_what_changed_most_stands_first():
    cells = [replace(PRUNED, seed=n) for n in range(4)]
    old = run(*(facts(c, **speed(2.0)) for c in cells), facts(replace(PRUNED, seed=9)))
    new = run(
        facts(cells[0], **speed(2.01)),
        facts(cells[1], **speed(2.2)),
        facts(cells[2], **speed(1.0)),
        facts(cells[3], status="failed"),
        facts(replace(PRUNED, seed=8)),
    )
    pairs = compared(old, new).pairs
    assert [p.name.split("-seed")[1][0] for p in pairs] == ["3", "2", "1", "0", "9", "8"]
    assert [p.verdict for p in pairs[-2:]] == ["only in A", "only in B"]
    text = comparison_text(compared(old, new), "github")
    assert "ok → failed" in text
    assert text == text_of(run(*reversed(old.facts)), run(*reversed(new.facts)))


def test_another_recipe_is_another_case_and_says_so():
    shared = facts(CONTROL)
    longer = facts(replace(PRUNED, recipe=Recipe(name="brief", epochs=99)))
    verdicts = [p.verdict for p in compared(run(shared, facts()), run(shared, longer)).pairs]
    assert verdicts == ["inconclusive", "only in A, with another recipe", "only in B, with another recipe"]
    with pytest.raises(UsageError, match="their recipes differ"):
        compared(run(facts()), run(longer))


def test_another_baseline_is_no_change():
    pair = only_pair(run(facts(**speed(2.0))), run(facts(**speed(3.0), baseline="dense_channels_last")))
    assert (pair.verdict, pair.log_change) == ("other baseline", None)


def network_over(baseline, dense, peer, ours):
    """A network timed through torch and a peer: speed-ups over the baseline."""
    arms = {"dense": arm(**speed(dense), blocks=20, verdict="slower"),
            "onnxruntime": arm(**speed(peer), blocks=20, version="1.2", verdict="faster")}  # fmt: skip
    arms[baseline] = arm(seconds=0.1, speedup=1.0, blocks=20, version=arms[baseline]["version"])
    return answer("networks", NETWORK, arms=arms, baseline=baseline, verdict="faster", blocks=20, **speed(ours))


def test_networks_with_other_fastest_ways_are_compared_over_one_that_both_timed():
    # A: csr 6 over onnxruntime. B: 2 over dense, onnxruntime 0.5 over dense, so csr 4 over onnxruntime.
    a = answers_run(network_over("onnxruntime", 0.5, 1.0, 6.0))
    b = answers_run(network_over("dense", 1.0, 0.5, 2.0))
    result = compared(a, b)
    [pair] = result.pairs
    assert pair.against == "onnxruntime 1.2"
    assert math.exp(pair.log_change[1]) == pytest.approx(4 / 6)
    assert pair.log_change[1] - pair.log_change[0] == pytest.approx(math.sqrt(3) * math.log(1.01))
    assert "4.00× over onnxruntime 1.2" in comparison_text(result, "github")


def test_arms_in_processes_of_their_own_are_other_baselines():
    facts = [network_over("onnxruntime", 0.5, 1.0, 6.0) for _ in range(2)]
    for one in facts[1]["arms"].values():
        one["process"] = "own"
    result = compared(*map(answers_run, facts))
    assert [p.verdict for p in result.pairs] == ["other baseline"]
    assert result.controls == 0


def test_dense_ways_of_a_network_are_controls():
    a, b = (answers_run(network_over("onnxruntime", by, 1.0, 6.0)) for by in (0.5, 0.75))
    result = compared(a, b)
    assert result.controls == 1
    assert result.margin == pytest.approx(math.log(1.5) - math.sqrt(2) * math.log(1.01))


def test_layers_are_paired_too():
    result = compared(answers_run(layer(speedup=3.0)), answers_run(layer(speedup=6.0)))
    assert [(p.group, round(math.exp(p.log_change[1]), 9)) for p in result.pairs] == [("layers csr", 2.0)]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_every_case(format):
    old, new = run(facts(), facts(CONTROL)), run(facts(**speed(4.0)))
    text = text_of(old, new, format=format)
    assert text.count("weight") == 1
    assert "only in A" in text
    assert text == text_of(old, new, format=format)
    assert "× over dense" in text or format == "csv"


def test_csv_holds_numbers_alone():
    rows = list(
        csv.DictReader(io.StringIO(text_of(run(facts()), run(facts(**speed(4.0), accuracy=0.5)), format="csv")))
    )
    assert len(rows) == 1
    assert float(rows[0]["change"]) == 2.0
    assert (rows[0]["accuracy_a"], rows[0]["accuracy_b"]) == ("0.9", "0.5")
    assert (rows[0]["baseline_a"], rows[0]["status_b"]) == ("dense", "ok")


# What is refused


def on(machine, *rows):
    return replace(run(*rows), machine=machine)


HERE = {"id": "a" * 10, "cpu": "one CPU", "cores": 2, "architecture": "x86_64", "system": "Linux",
        "engine": {"isa": "avx512", "build": "111"}, "versions": {"torch": "2.0", "prunebench": "0.1"}}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "across", "words"),
    [
        ({"engine": {"isa": "avx512", "build": "222"}}, "engine", ["111", "222", "--across engine"]),
        ({"versions": {"torch": "2.1", "prunebench": "0.1"}}, "versions", ["torch 2.0", "torch 2.1"]),
        ({"versions": {"torch": "2.0", "prunebench": "0.2"}}, "engine", ["prunebench 0.1", "prunebench 0.2"]),
        ({"cpu": "another"}, None, ["one CPU and another", "two machines can't be compared"]),
        ({"cores": 4}, None, ["cores: 2 and 4"]),
        ({"cpu": None}, None, ["cpu: one CPU and unknown"]),
    ],
)
def test_mixed_machines_are_refused_with_the_remedy(changes, across, words):
    runs = on(HERE, facts()), on({**HERE, "id": "b" * 10, **changes}, facts())
    with pytest.raises(UsageError) as error:
        compared(*runs)
    message = str(error.value)
    assert "\n" not in message
    for word in ["run old was timed on aaaaaaaaaa", "run new on bbbbbbbbbb", "--accuracy", *words]:
        assert word in message
    assert compared(*runs, accuracy=True).pairs
    for allowed in ("engine", "versions"):
        if allowed == across:
            assert compared(*runs, across=[allowed]).differing
        else:
            with pytest.raises(UsageError, match="was timed on"):
                compared(*runs, across=[allowed])


def test_runs_that_tell_of_no_machine_are_refused():
    with pytest.raises(UsageError, match="unknown"):
        compared(on({}, facts()), on({}, facts()))


def test_where_torch_changed_nothing_is_a_control():
    runs = [on({**HERE, "versions": {"torch": v}}, facts(), facts(backend="dense")) for v in ("2.0", "2.1")]
    assert compared(*runs, across=["versions"]).controls == 0


def test_thread_counts_are_never_mixed():
    one, two = run(facts(threads=1)), run(facts(threads=2))
    with pytest.raises(UsageError, match="with 1 thread, run new with 2 threads"):
        compared(one, two)
    assert len(compared(one, two, accuracy=True).both) == 1
    both = compared(run(facts(threads=1), facts(threads=2)), two)
    assert [p.verdict for p in both.pairs] == ["inconclusive", "only in A"]


def test_an_unknown_across_lists_the_known():
    with pytest.raises(UsageError, match=r"unknown --across 'cpu'; known: engine, versions"):
        compared(run(facts()), run(facts()), across=["cpu"])


# The check for CI


def test_fail_slower_needs_the_whole_interval_beyond_the_limit():
    result = compared(run(facts(**speed(2.0))), run(facts(**speed(1.8))))  # takes 11.1 % ± 1.4 % longer
    assert slower_than(result, 0.05)
    assert "takes 11.1 % longer" in slower_than(result, 0.05)[0]
    assert not slower_than(result, 0.10)
    assert not slower_than(compared(run(facts(**speed(2.0))), run(facts(**speed(2.2)))), 0.0)


def test_fail_slower_counts_what_failed_and_what_no_one_can_judge():
    failed = compared(run(facts(), facts(CONTROL)), run(facts(status="failed"), facts(CONTROL)))
    assert ["was ok and is failed" in line for line in slower_than(failed, 0.5)] == [True]
    unstable = compared(run(facts()), run(facts(verdict="unstable")))
    assert slower_than(unstable, 0.5) == ["no case could be judged"]


def test_fail_slower_counts_what_a_run_that_was_cut_off_has_not_come_to():
    whole = run(facts(), facts(CONTROL))
    assert not slower_than(compared(whole, run(facts(CONTROL))), 0.5)  # a smaller run is a choice
    [said] = slower_than(compared(whole, run(facts(CONTROL), complete=False)), 0.5)
    assert said.startswith("1 cases that were ok are missing from ")


# The command, on files


def saved(folder, name, machine=HERE, **values):
    """A saved run as pytest-benchmark writes it, of one case."""
    path = folder / "runs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    stats = {"median": 1.0}
    benchmarks = [{"name": "x", "fullname": "x", "stats": stats, "extra_info": facts(**values)}]
    machine_info = {"prunebench": machine}
    path.write_text(json.dumps({"benchmarks": benchmarks, "datetime": "2024", "machine_info": machine_info}))
    return path


def test_the_command_compares_edited_runs(tmp_path, prunebench):
    saved(tmp_path, "0001_old.json", **speed(2.0))
    saved(tmp_path, "0002_new.json", **speed(1.5))
    saved(tmp_path, "0003_new.json", **speed(2.0))
    saved(tmp_path, "0004_built.json", {**HERE, "id": "b" * 10, "engine": {"build": "222"}}, **speed(2.0))
    there = ("--results", tmp_path)
    slower = prunebench("compare", "old", "0002", "--fail-slower", "5%", *there)
    assert slower.returncode == 1
    assert "0.750× [0.740, 0.761]" in slower.out
    assert "takes 33.3 % longer" in slower.err
    assert "B = 0002_new against A = 0001_old." in slower.out
    same = prunebench("compare", tmp_path / "runs" / "0001_old.json", "0003", "--fail-slower", "5%", *there)
    assert same.returncode == 0, same.err
    for arguments, words in [
        (("old", "new"), "run 'new' is saved 2 times: 0002_new, 0003_new; name one of these"),
        (("old", "built"), "--across engine compares them all the same"),
        (("old", "0003", "--fail-slower", "5"), "--fail-slower '5' is not a percentage"),
        (("old", "0003", "--fail-slower", "nan%"), "is not a percentage"),
        (("old", "0003", "--fail-slower", "5%", "--accuracy"), "give one of them"),
        (("old", "0003", "--format", "pdf"), "unknown format 'pdf'"),
        (("old", "nothing"), "unknown run 'nothing'"),
    ]:
        done = prunebench("compare", *arguments, *there)
        assert (done.returncode, done.out) == (2, ""), arguments
        assert words in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert prunebench("compare", "old", "built", "--across", "engine", *there).returncode == 0
    assert prunebench_command("compare", "old", "0002", "--fail-slower", "5%", *there).returncode == 1


# pytest-benchmark's own files

_SLEEPERS = """
import time
import pytest

@pytest.mark.parametrize("what", ["short", "gone" if {slow} == 1 else "come"])
def test_sleeps(benchmark, what):
    benchmark.pedantic(time.sleep, ({slow} * 0.002,), rounds=15)
"""


@pytest.fixture(scope="module")
def plain_files(tmp_path_factory):
    """Two real files of pytest-benchmark, the second three times slower; the first with its samples saved."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "conftest.py").write_text("")
    found = []
    for slow, extra in ((1, ["--benchmark-save-data"]), (3, [])):
        (folder / "test_sleepers.py").write_text(_SLEEPERS.format(slow=slow))
        lean = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_benchmark.plugin"}
        place = [f"--benchmark-storage=file://{folder}", f"--benchmark-save=s{slow}", *extra]
        done = command(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *place, cwd=folder, **lean)
        assert done.returncode == 0, done.stdout + done.stderr
        [path] = folder.rglob(f"*_s{slow}.json")
        found.append(path)
    return found


def test_plain_files_are_compared_by_full_name(plain_files, prunebench):
    old, new = plain_files
    done = prunebench("compare", old, new, "--fail-slower", "50%")
    assert done.returncode == 1, done.err
    assert "hold no baseline" in done.out
    lines = [line.split("|") for line in done.out.splitlines() if "test_sleeps" in line]
    assert [(line[1].strip(), line[3].strip()) for line in lines] == [
        ("test_sleepers.py::test_sleeps[short]", "slower"),
        ("test_sleepers.py::test_sleeps[gone]", "only in A"),
        ("test_sleepers.py::test_sleeps[come]", "only in B"),
    ]
    medians = [statistic(path, "median") for path in (old, new)]
    assert f"{medians[0] / medians[1]:.3f}×" in lines[0][2]
    assert prunebench("compare", new, old, "--fail-slower", "50%").returncode == 0


def statistic(path, name):
    [found] = [b["stats"][name] for b in json.loads(path.read_text())["benchmarks"] if "short" in b["name"]]
    return found


def edited(path, to, change):
    content = json.loads(path.read_text())
    change(content)
    to.write_text(json.dumps(content))
    return to


def test_plain_intervals_come_from_the_samples_or_from_the_quartiles(plain_files, tmp_path, prunebench):
    def set_stats(**values):
        return lambda c: [b["stats"].update(values) for b in c["benchmarks"]]

    data = edited(plain_files[0], tmp_path / "a.json", set_stats(data=[2.0] * 9))
    quartiles = edited(plain_files[0], tmp_path / "b.json", set_stats(data=None, median=1.0, iqr=0.27, rounds=25))
    done = prunebench("compare", data, quartiles, "--format", "csv")
    row = next(row for row in csv.DictReader(io.StringIO(done.out)) if "short" in row["case"])
    # The samples are all alike, so the interval is that of the quartiles: 1.96 · 1.25 · 0.27 / (1.35 · 5) = 0.098.
    assert [float(row[k]) for k in ("change_low", "change", "change_high")] == pytest.approx(
        [2 * math.exp(-0.098), 2, 2 * math.exp(0.098)], rel=1e-6
    )


def machine_of(**values):
    return lambda c: c["machine_info"].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["machine_info"]["cpu"].update(brand_raw="Z80"), "and Z80"),
        (machine_of(python_version="2.7.1"), "CPython 2.7.1"),
        (lambda c: c["benchmarks"].clear(), "holds no result"),
        (lambda c: c["benchmarks"][0]["stats"].update(data=None, median=float("nan")), "holds no results that can"),
        (lambda c: c["benchmarks"][0]["stats"].update(data=None, median=0.0), "holds no results that can"),
        (lambda c: c["benchmarks"][0].pop("stats"), "holds no results that can"),
        (lambda c: [b.update(fullname="other") for b in c["benchmarks"]], "no case in common"),
        (lambda c: c["benchmarks"][0].update(extra_info=facts()), "by other benchmarks; compare two of a kind"),
    ],
)
def test_plain_files_that_can_not_be_compared(plain_files, tmp_path, prunebench, change, words):
    broken = edited(plain_files[0], tmp_path / "edited.json", change)
    done = prunebench("compare", plain_files[0], broken)
    assert (done.returncode, done.out) == (2, "")
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
