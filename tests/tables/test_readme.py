"""Generated blocks of a document follow the runs; everything around them stays."""

from dataclasses import replace
from pathlib import Path

import pytest
from saved_answers import NETWORK, network
from saved_answers import run as networks_run
from saved_facts import CONTROL, PRUNED, facts, run

from prunebench.errors import UsageError
from prunebench.runs import load_runs
from prunebench.tables.readme import refresh

ROOT = Path(__file__).parents[2]
DOCUMENTS = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "<!-- table:" in p.read_text()]
START, END = "<!-- table: {} -->", "<!-- end of table -->"


def document(path, *queries):
    blocks = "\n\nbetween\n\n".join(f"{START.format(q)}\nold text\n{END}" for q in queries)
    path.write_text(f"# Title\n\nbefore\n\n{blocks}\n\nafter\n")
    return path


HERE = "machine=aaaaaaaaaa threads=1"


def test_a_block_is_made_from_the_runs(tmp_path):
    path = document(tmp_path / "README.md", HERE)
    assert refresh(path, [run(facts(), facts(CONTROL))])
    text = path.read_text()
    assert text.startswith(f"# Title\n\nbefore\n\n{START.format(HERE)}\n|")
    assert text.endswith(f"|\n{END}\n\nafter\n")
    assert "old text" not in text
    assert "43,050 of 430,500" in text
    assert not refresh(path, [run(facts(), facts(CONTROL))])
    assert path.read_text() == text


def test_new_numbers_replace_old_ones(tmp_path):
    path = document(tmp_path / "README.md", HERE)
    refresh(path, [run(facts())])
    assert refresh(path, [run(facts(accuracy=0.1234))])
    assert "12.34" in path.read_text()
    assert "90.00" not in path.read_text()


def test_a_block_chooses_rows_with_the_control_beside_them(tmp_path):
    runs = [run(facts(), facts(replace(PRUNED, criterion="l2")), facts(CONTROL), facts(replace(PRUNED, sparsity=0.5)))]
    path = document(tmp_path / "README.md", f"{HERE} criterion=l1 sparsity=0.9 drop=recipe,bytes_on_disk")
    refresh(path, runs)
    text = path.read_text()
    assert "unpruned" in text
    assert "l1 weight" in text
    assert "l2 weight" not in text
    assert "50 %" not in text
    assert "bytes on disk" not in text
    assert "brief" not in text  # the recipe's name


def test_each_block_has_its_own_choice(tmp_path):
    path = document(tmp_path / "README.md", f"{HERE} backend=csr", f"{HERE} backend=dense")
    refresh(path, [run(facts(accuracy=0.1111), facts(backend="dense", accuracy=0.2222))])
    first, second = path.read_text().split("between")
    assert "11.11" in first
    assert "22.22" not in first
    assert "22.22" in second
    assert "11.11" not in second


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("threads=1", "machine="),
        ("machine=aaaaaaaaaa", "threads="),
        (f"{HERE} color=red", "'color'"),
        (f"{HERE} model=vgg", "finds no result"),
        ("machine=cccccccccc threads=1", "finds no result"),
        ("machine=aaaaaaaaaa threads=one", "threads"),
        (f"{HERE} l1", "l1"),
    ],
)
def test_a_block_that_can_not_be_is_one_line_and_changes_nothing(tmp_path, query, words):
    path = document(tmp_path / "README.md", query)
    before = path.read_text()
    with pytest.raises(UsageError, match=words) as error:
        refresh(path, [run(facts())])
    assert "\n" not in str(error.value)
    assert path.read_text() == before


def test_a_document_without_blocks_or_none_at_all_is_left_alone(tmp_path):
    path = tmp_path / "README.md"
    assert not refresh(path, [])
    assert not path.exists()
    path.write_text("# Title\n")
    assert not refresh(path, [])
    assert path.read_text() == "# Title\n"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_projects_own_blocks_are_what_its_runs_give(tmp_path, path):
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    assert not refresh(copy, load_runs(ROOT / "results" / "runs"))


def test_claims_stand_in_a_document_with_what_became_of_them(tmp_path):
    path = document(tmp_path / "page.md", "kind=claims claim=same_accuracy,speedup_at_90 drop=in_detail")
    refresh(path, [run(facts())])
    text = path.read_text()
    assert "At 90 % sparsity a LeNet is as accurate" in text
    assert text.count("undecided") == 2
    assert "memory_12_8" not in text
    document(path, "kind=claims claim=nothing")
    with pytest.raises(UsageError, match="'nothing', which isn't registered"):
        refresh(path, [run(facts())])


def test_a_block_of_another_kind_chooses_by_its_own_columns(tmp_path):
    runs = [run(facts()), networks_run(network(), network(replace(NETWORK, model="lenet300")))]
    query = "machine=aaaaaaaaaa threads=1 kind=networks model=resnet18_cifar drop=dense_channels_last_ms,sparsity"
    path = document(tmp_path / "README.md", query)
    refresh(path, runs)
    text = path.read_text()
    assert "resnet18_cifar" in text
    assert "lenet300" not in text
    assert "csr ms" in text
    assert "dense_channels_last ms" not in text
    assert "sparsity" not in text.split("-->")[1]
    for wrong, named in (("kind=plots", "'plots'.*networks"), ("kind=networks color=red", "'color'")):
        document(path, f"machine=aaaaaaaaaa threads=1 {wrong}")
        with pytest.raises(UsageError, match=named):
            refresh(path, runs)
