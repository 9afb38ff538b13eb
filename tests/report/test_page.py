"""The page as text: what stands in it, that it asks nothing of the outside, and that a run's words stay words."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from hostile import ROOT, hostile_runs
from reading import Reader
from running import BIN, command, prunebench
from saved_answers import layer, network
from saved_answers import run as answers_run
from saved_facts import CONTROL, PRUNED, facts, grid, run

from prunebench.claims import registered
from prunebench.errors import UsageError
from prunebench.plots import plots_of
from prunebench.report import page, write_report
from prunebench.report.block import IN_PAGE, IN_TUCKED, block_of
from prunebench.runs import load_runs
from prunebench.tables.files import kinds_of
from prunebench.tables.grid import detail, frame

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>50 % of #1 &amp; "more"</text><script>alert(1)</script></svg>'


@pytest.fixture(scope="module")
def committed():
    """The committed runs and their page."""
    runs = load_runs(ROOT / "results" / "runs")
    return runs, page(runs, [("a plot", SVG)])


def test_the_same_runs_give_the_same_page():
    runs = [run(*grid()), answers_run(layer(), network(), name="other")]
    assert page(runs, [("a plot", SVG)]) == page(runs, [("a plot", SVG)])
    assert page([run(*grid())]) == page([run(*reversed(grid()))])


def test_every_table_of_the_runs_stands_in_it_word_by_word(committed):
    runs, text = committed
    found = Reader(text)
    for kind, tables in kinds_of(runs).items():
        for (machine, threads), table in tables.items():
            rows = found.rows(f"{kind}-{machine}-t{threads}")
            assert all(row.pop("measure again").startswith("pytest benchmarks") for row in rows)
            assert rows == table.astype(str).to_dict("records")
    numbers = detail(frame(runs))
    shown = found.rows("detail-csv")
    assert len(shown) == len(numbers)
    assert [float(row["latency_seconds"]) for row in shown] == pytest.approx(list(numbers["latency_seconds"]))
    assert [run.name for run in runs] == [row["run"] for row in found.rows("runs")]


def test_one_value_changes_only_what_depends_on_it():
    def rows(**changes):
        found = Reader(page([run(facts(PRUNED, **changes), facts(CONTROL))]))
        return {name: found.rows(name) for name in found.tables}

    before, after = rows(), rows(resident_bytes=12345)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"bytes-aaaaaaaaaa-t1", "detail-csv"}
    assert after["bytes-aaaaaaaaaa-t1"][1]["csr in memory"] == "12.3 kB"


def test_every_claim_has_a_card_and_every_verdict_a_row():
    found = Reader(page([run(*grid())]))
    text = " ".join(found.text.split())
    assert all(" ".join(claim.statement.split()) in text for claim in registered())
    assert {row["claim"] for row in found.rows("places")} == {claim.id for claim in registered()}
    cards = [a for tag, a in found.elements if tag == "li" and (a.get("class") or "").startswith("card ")]
    assert len(cards) == len(registered())


def test_cases_without_a_result_are_listed_with_their_reason():
    runs = [run(facts(CONTROL), facts(PRUNED, status="diverged", reason="loss is NaN")),
            answers_run(layer(status="oom", reason="9 GB asked for"), name="other")]  # fmt: skip
    found = Reader(page(runs)).rows("troubles")
    assert [(row["status"], row["reason"], row["run"]) for row in found] == [
        ("diverged", "loss is NaN", "quick"),
        ("oom", "9 GB asked for", "other"),
    ]
    assert "troubles" not in Reader(page([run(*grid())])).tables


def test_a_long_table_gives_its_first_rows_to_everyone_and_the_rest_to_the_script(monkeypatch):
    rows = [{"run": f"run-{n}", "measured": f"</script><b>{n}&\u2028"} for n in range(IN_PAGE + 50)]
    monkeypatch.setattr("prunebench.report.about.sources", lambda _: block_of("runs", "Runs", pd.DataFrame(rows)))
    found = Reader(page([run(*grid())]))
    assert len(found.tables["runs"]) == 1 + IN_PAGE
    assert found.rows("runs") == rows
    assert f"The first {IN_PAGE} of {len(rows)} rows" in found.text
    tucked = block_of("runs", "Runs", pd.DataFrame(rows), tucked=True)
    assert (len(tucked.inside), len(tucked.rest)) == (IN_TUCKED, len(rows) - IN_TUCKED)


def test_it_asks_nothing_of_the_outside_and_runs_only_its_own_script(committed):
    _, text = committed
    assert len(text) < 5_000_000
    found = Reader(text)
    for tag, given in found.elements:
        assert not [name for name in given if name.startswith("on") or name == "style"], (tag, given)
        for name in ("href", "src", "action", "srcset", "data"):
            assert (given.get(name) or "#").startswith(("#", "data:")), (tag, given)
    assert {tag for tag, _ in found.elements} & {"iframe", "object", "embed", "base", "form"} == set()
    [policy] = [g["content"] for tag, g in found.elements if g.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [own] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert set(re.findall(r"https?://[a-z.0-9]+", text)) == {"http://www.w3.org"}  # a name, in the plot


def test_words_of_a_run_are_never_markup(tmp_path):
    runs, places = hostile_runs(tmp_path)
    assert places > 100
    found = Reader(page(runs, [("<script>alert(1)</script>", SVG)]))
    assert [given for tag, given in found.elements if tag == "script" and not given] == [{}]
    assert not [given for tag, given in found.elements if any(name.startswith("on") for name in given)]
    assert {given["src"][:15] for tag, given in found.elements if tag == "img"} == {"data:image/svg+"}
    assert "window.hacked=1;alert(1)" in found.text
    assert "{{ 7*7 }}" in found.text


def test_text_that_is_no_unicode_is_still_written(tmp_path):
    written = write_report([run(*grid(), name="half \ud83d a pair")], tmp_path / "page.html")
    assert "half ? a pair" in Reader(written.read_text()).text


def test_there_is_no_page_without_a_result(tmp_path):
    with pytest.raises(UsageError, match="no saved run holds a result yet"):
        write_report([run()], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_machine_s_versions_and_build_are_told():
    one = run(*grid())
    odd = replace(one, machine={**one.machine, "id": "bbbbbbbbbb", "versions": ["not", {"a": None}], "engine": None,
                                "memory_bytes": 3 * 2**30})  # fmt: skip
    text = " ".join(Reader(page([one, odd])).text.split())
    assert "machine aaaaaaaaaa cpusome <CPU> & more cores2 engineisa avx2 versionstorch 2" in text
    assert "engine– versionsnot, a – memory3.0 GiB" in text


@pytest.fixture
def results(tmp_path):
    """A folder of results with two small runs in it."""
    folder = tmp_path / "results" / "runs"
    folder.mkdir(parents=True)
    for number, (name, measured) in enumerate({"grid": grid(), "networks": [network()]}.items(), 1):
        machine = {"prunebench": run().machine}
        content = {"datetime": "2024-01-01T00:00:00", "machine_info": machine,
                   "benchmarks": [{"extra_info": one} for one in measured]}  # fmt: skip
        (folder / f"000{number}_{name}.json").write_text(json.dumps(content))
    return tmp_path / "results"


def test_the_command_writes_the_page_of_the_runs_named(results):
    done = prunebench("report", "grid", "--results", results)
    said = [line for line in done.stderr.splitlines() if " plots; " not in line]  # how far it is, where it takes long
    assert (done.returncode, said) == (0, [])
    assert done.stdout.startswith(f"{results / 'report.html'}: 0.")
    found = Reader((results / "report.html").read_text())
    assert [row["run"] for row in found.rows("runs")] == ["grid"]
    titles = [given["alt"] for tag, given in found.elements if tag == "img"]
    assert titles == [plot.title for plot in plots_of(load_runs(results / "runs", ["grid"]))]
    assert len(titles) > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "unknown run 'nowhere'; known: grid, networks; runs are saved"),
        (["networks", "--output", "nowhere/page.html"], "can't write nowhere/page.html: No such file or directory"),
        (["networks", "--output", "results"], "can't write results: Is a directory"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(results, arguments, said):
    before = sorted(results.parent.rglob("*"))
    done = command(BIN / "prunebench", "report", *arguments, "--results", results, cwd=results.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"prunebench: {said}")
    assert done.stderr.count("\n") == 1
    assert sorted(results.parent.rglob("*")) == before
