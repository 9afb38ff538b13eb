"""Words from saved runs stay words in Markdown, CSV, HTML, LaTeX and on a terminal; a bomb of a run is one line."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from prunebench import cli
from prunebench.errors import UsageError
from prunebench.runs import load_runs, read_run
from prunebench.tables.files import write_tables
from prunebench.tables.rendering import FORMATS, markdown, render
from prunebench.untrusted import MOST_BYTES, is_plain

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "saved_run"
WORDS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "a \\| b", "![x](http://a/b)",
    "[x](javascript:a)", "<!-- end of table -->", "x\n| forged | row |", "x\r\n\r\n# heading",
    "\x1b]0;title\x07", "\x1b[2J", "a\u202eb",
    "```", "\\input{/etc/passwd}", "\\end{tabular}", "$x^2_3$ & % # {} ~", "\\\\", "half\ud800",
]  # fmt: skip
FORMULAS = [
    "=1+1", "=cmd|' /C calc'!A0", "+1+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", " =1",
    "=HYPERLINK(\"http://a\",\"b\")", "-A1", "+A1", "-1 +cmd|'/C calc'!A0", "+1-(1)",
]  # fmt: skip


def tables(word):
    return pd.DataFrame([{"first": word, "second": "x", f"head {word}": 1.5}, {"first": "y", "second": word}])


@pytest.mark.parametrize("word", [*WORDS, *FORMULAS])
def test_markdown_keeps_its_rows_and_holds_no_tag_or_link(word):
    text = render(tables(word), "github")
    lines = text.splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {4}
    assert "<" not in text
    assert "](" not in text
    assert is_plain(text.replace("\n", ""))


@pytest.mark.parametrize("word", [*WORDS, *FORMULAS])
def test_csv_holds_no_formula(word):
    text = render(tables(word), "csv")
    rows = list(csv.reader(io.StringIO(text)))
    assert [len(row) for row in rows] == [3, 3, 3]
    for cell in (cell for row in rows for cell in row):
        assert is_plain(cell)
        assert not re.match(r"\s*[=@]", cell)
        assert not re.match(r"\s*[-+].*[|!'\"(=]", cell)
    text.encode()


@pytest.mark.parametrize(
    "word", ["-0.21 points", "+0.12", "-1.5e-3", "–", "2.3× [2.1, 2.5]", "~0.08", "-1 %", "a=b", "x|y"]
)
def test_csv_leaves_numbers_and_words_alone(word):
    assert next(csv.reader([render(tables(word), "csv").splitlines()[1]]))[0] == word
    assert render(pd.DataFrame({"n": [-1.5, 2.0]}), "csv") == "n\n-1.5\n2\n"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("word", [*WORDS, *FORMULAS])
def test_html_holds_only_its_own_tags(word):
    found = Tags()
    found.feed(render(tables(word), "html"))
    assert found.tags == {"meta", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("word", [*WORDS, *FORMULAS])
def test_latex_holds_only_its_own_commands(word):
    text = render(tables(word), "latex")
    own = [r"\\(begin|end)\{tabular\}", r"\\(top|mid|bottom)rule", r"\\\\$", r"\\text(backslash|asciitilde)\{\}",
           r"\\ensuremath\{[<>]\}", r"\\[&%$#_{}]", r"\\\^\{\}"]  # fmt: skip
    rest = re.sub("|".join(own), "", text, flags=re.MULTILINE)
    assert "\\" not in rest
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert len(re.findall(r"\\\\$", text, re.MULTILINE)) == 3
    assert "%" not in rest


def test_our_own_links_stay_links():
    text = render(pd.DataFrame([{"a": "[x](y.md)", "b": "[x](y.md)"}]), "github", links=("a",))
    assert text.splitlines()[2].split("|")[1].strip() == "[x](y.md)"
    assert "](" not in text.splitlines()[2].split("|")[2]


def test_markdown_of_a_plain_word_is_the_word():
    assert markdown("2.31× [2.25, 2.40] unstable – `x`") == "2.31× [2.25, 2.40] unstable – `x`"


def test_a_hostile_recipe_s_name_goes_through_every_file(tmp_path):
    content = json.loads((CORPUS / "grid.json").read_text())
    for benchmark in content["benchmarks"]:
        benchmark["extra_info"]["cell"]["recipe"]["name"] = "=1|<b>\x1b[2J\n](x)"
    runs = tmp_path / "results" / "runs"
    runs.mkdir(parents=True)
    (runs / "0001_x.json").write_text(json.dumps(content))
    write_tables(load_runs(runs), tmp_path / "tables")
    texts = {path: path.read_text() for path in (tmp_path / "tables").iterdir()}
    assert {path.suffix for path in texts} == set(FORMATS.values())
    assert any("=1" in text for text in texts.values())
    for path, text in texts.items():
        assert "\x1b" not in text, path
        assert path.suffix not in (".md", ".html") or "<b>" not in text, path
        assert path.suffix != ".md" or "](x)" not in text
        assert path.suffix != ".csv" or ",=1" not in text


def test_an_error_of_the_command_line_does_nothing_to_the_terminal(tmp_path, capsys):
    path = tmp_path / "0001_x.json"
    path.write_text('{"benchmarks": [], "datetime": "x", "machine_info": {}}')
    assert cli.main(["compare", "\x1b[2Jevil\nprunebench: all is well", str(path), "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert is_plain(said.rstrip("\n"))


def bombs():
    whole = (CORPUS / "grid.json").read_text()
    yield "deep", "[" * 200_000
    yield "deep objects", '{"a":' * 200_000
    yield "deep in a fact", whole.replace('"reason": null', '"reason": ' + "[" * 500 + "]" * 500, 1)
    yield "a number of ten thousand digits", whole.replace('"seed": 0', '"seed": ' + "9" * 10_000, 1)
    yield "infinite", re.sub(r'"speedup": [0-9.]+', '"speedup": 1e999', whole, count=1)
    yield "NaN", re.sub(r'"speedup": [0-9.]+', '"speedup": NaN', whole, count=1)
    yield "2^200", re.sub(r'"nonzeros": [0-9]+', f'"nonzeros": {2**200}', whole, count=1)
    yield "a name of a megabyte", whole.replace('"model": "', '"model": "' + "a" * 1_000_000, 1)


@pytest.mark.parametrize(("content"), [pytest.param(text, id=name) for name, text in bombs()])
@pytest.mark.parametrize("ending", ["json", "partial.jsonl"])
def test_a_bomb_is_one_short_line(tmp_path, content, ending):
    path = tmp_path / f"0001_x.{ending}"
    path.write_text(content.replace("\n", " ") + "\n{}\n" if ending != "json" else content)
    with pytest.raises(UsageError, match="is not a saved run") as error:
        read_run(path)
    assert is_plain(str(error.value))
    assert len(str(error.value)) < 1000


def test_a_file_beyond_all_measure_is_not_read(tmp_path):
    path = tmp_path / "0001_x.json"
    with open(path, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="more than"):
        read_run(path)
