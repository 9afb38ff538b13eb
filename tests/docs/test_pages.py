"""What the pages say can be done: links lead somewhere, command lines parse, --json has the keys."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from documents import PAGES, ROOT, anchors, command_lines, links, same_but_for_numbers
from running import command

import prunebench as pb
from prunebench import cli

PYTEST = sorted({tuple(words) for page in PAGES for words in command_lines(page) if words[0] == "pytest"})
ids = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name} links to {link}, which isn't there"
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, a heading that isn't there"


def test_every_page_is_in_the_index():
    listed = set(links(ROOT / "docs" / "index.md"))
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"} <= listed


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_line_is_one(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *words in command_lines(page):
        if program == "prunebench":
            if "COMMAND" in words or words == ["…"]:
                continue
            words = [word for word in words if word != "…"]
            if len(words) == 1 and not words[0].startswith("-"):  # mentioned by its name
                assert words[0] in {module.__name__.rpartition(".")[2] for module in cli.COMMANDS}
                continue
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
                cli._parser().parse_args(words)
        elif program == "make":
            assert {word for word in words if "=" not in word} <= targets, words
        elif program == "python":
            named = [word for word in words if word.endswith(".py")]
            assert all((ROOT / word).is_file() for word in named), words


@pytest.mark.slow
@pytest.mark.parametrize("words", PYTEST, ids=lambda words: " ".join(words)[:80])
def test_every_pytest_line_collects(words):
    if "…" in " ".join(words):
        pytest.skip("an abbreviated line")
    plugin = ROOT / "examples" / "criterion_plugin"
    # The pages' own plugins: `saliency` is the example package's, the others stand in docs/plugins.md.
    script = "import sys, pathlib; sys.path[:0] = sys.argv[1:3]; import prunebench_saliency, documents, pytest; "
    script += "code = [b for b in documents.blocks(documents.ROOT / 'docs/plugins.md') if b.language == 'python'][:4]; "
    script += "[exec(b.text, globals()) for b in code]; sys.exit(pytest.main(sys.argv[3:]))"
    arguments = [word for word in words[1:] if not word.startswith("--benchmark")]
    done = command(
        sys.executable,
        "-c",
        script,
        str(plugin),
        str(ROOT / "tests"),
        *arguments,
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert re.search(r"\d+( of \d+|/\d+)? tests? (collected|selected)|\d+ tests collected|::", done.stdout), (
        done.stdout[-500:]
    )


def test_numbers_may_differ_and_words_may_not():
    assert same_but_for_numbers("a 1.5 ms, 3 of 1,000", "a 22 ms,   4 of 7")
    assert same_but_for_numbers("0 0.90 …\n1", "0 0.88 row 8x1 tiles\n2")
    assert not same_but_for_numbers("a 1.5 ms", "a 1.5 s")
    assert not same_but_for_numbers("a", "a\nb")


def documented_keys() -> dict[str, set[str]]:
    """Command -> the keys that docs/json.md's table names first: those before a colon or alone."""
    rows = re.findall(r"^\| `([\w ]+)` \| (.*) \|$", (ROOT / "docs" / "json.md").read_text(), re.M)
    return {
        name: {key for part in keys.split("; ") for key in re.findall(r"`(\w+)`", part.partition(": ")[0])}
        for name, keys in rows
    }


def test_every_command_s_document_is_documented():
    documented = list(dict.fromkeys(name.partition(" ")[0] for name in documented_keys()))
    assert documented == [module.__name__.rpartition(".")[2] for module in cli.COMMANDS]


def document(capsys, *words: str | Path) -> dict:
    code = cli.main([*map(str, words), "--json"])
    said = capsys.readouterr()
    assert code in (0, 1), said.err
    return json.loads(said.out)


def test_the_documents_of_checkpoints_hold_the_documented_keys(capsys, tmp_path):
    model, packed, back = (tmp_path / f"{name}.safetensors" for name in ("model", "packed", "back"))
    pb.save(torch.nn.Linear(20, 20), model, format="dense")
    keys = documented_keys()
    for name, words in {"pack": [model, packed], "inspect": [packed], "unpack": [packed, back]}.items():
        assert set(document(capsys, name, *words)) - {"schema", "command"} == keys[name], name


@pytest.fixture
def results(tmp_path):
    """A folder of results with the smallest committed run, under two names."""
    saved = min((ROOT / "results" / "runs").rglob("*_mnist*.json"), key=lambda path: path.stat().st_size)
    (tmp_path / "results" / "runs").mkdir(parents=True)
    for name in ("0001_one.json", "0002_two.json"):
        (tmp_path / "results" / "runs" / name).write_bytes(saved.read_bytes())
    return tmp_path / "results"


def test_the_documents_of_saved_runs_hold_the_documented_keys(capsys, results, monkeypatch):
    monkeypatch.setattr("prunebench.plots.files.plots_of", lambda runs: [])
    monkeypatch.setattr(importlib.import_module("prunebench.report.page"), "plots_of", lambda runs: [])
    keys = documented_keys()
    made = {
        "list": document(capsys, "list"),
        "tables": document(capsys, "tables", "one", "--results", results),
        "claims": document(capsys, "claims", "--results", results),
        "plots": document(capsys, "plots", "--results", results),
        "compare": document(capsys, "compare", "one", "two", "--results", results),
        "report": document(capsys, "report", "--results", results),
    }
    for name, one in made.items():
        assert one["schema"] == 1
        assert one["command"] == name
        assert set(one) - {"schema", "command"} == keys[name], name
    assert made["list"]["groups"]["criteria"]
    assert {"accuracy", "backend"} <= set(made["tables"]["grid"][0])
    assert "tables/index.md" in made["tables"]["files"]
    assert made["compare"]["cases"]
    assert made["compare"]["failures"] == []
    assert Path(made["report"]["file"]).stat().st_size == made["report"]["bytes"]


def test_the_documents_of_what_is_made_hold_the_documented_keys(capsys, tmp_path, one_thread):
    short = ("--epochs", "1", "--fine-tune-epochs", "0", "--schedule", "one_shot", "--store", tmp_path)
    one = document(capsys, "run", *short, "--backend", "dense", "--timing-seconds", "0.02")
    several = document(
        capsys, "sweep", "--profile", "smoke", *(w.replace("schedule", "schedules") for w in map(str, short))
    )
    keys = documented_keys()
    assert set(one) - {"schema", "command"} == keys["run"]
    assert set(several) - {"schema", "command"} == keys["sweep"]
    for words in (["store", "ls"], ["store", "verify"], ["store", "gc"]):
        listed = document(capsys, *words, "--store", tmp_path)
        assert listed["command"] == words[1]
        assert set(listed) - {"schema", "command"} == keys[" ".join(words)]
    assert one["cases"][0]["id"] == "lenet300-digits-l1-weight-global-one_shot-s900-seed0-dense-b64"
    assert one["cases"][0]["status"] == "ok"
    assert several["reused"] >= 1
    assert several["failed"] == {}
