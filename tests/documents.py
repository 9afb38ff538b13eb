"""The project's pages read as what they claim: code blocks, command lines, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[a-z ]+)(?:: (?P<value>[^>]*?))? -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.S
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: the comment right above it: `not run`, `file`, `output`, with its value after a colon."""

    language: str
    text: str
    line: int
    mark: str
    value: str


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = path.read_text()
    return [
        Block(m["language"], m["text"], text[: m.start("text")].count("\n") + 1, m["mark"] or "", m["value"] or "")
        for m in _BLOCK.finditer(text)
    ]


def command_lines(path: Path) -> Iterator[list[str]]:
    """Every command line of a page's shell blocks, and `prunebench …` in its text, as words; redirections cut off."""
    text = path.read_text()
    lines = [line for block in blocks(path) if block.language == "sh" for line in _joined(block.text)]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += [code for code in _INLINE.findall(prose) if code.startswith(("prunebench ", "pytest ", "make "))]
    for line in lines:
        for part in re.split(r" && | \|\|? ", re.sub(r" > \S+", "", line)):
            words = shlex.split(re.sub(r'eval "\$\((.*?)\)"', r"\1", part), comments=True)
            if words and words != ["…"]:
                yield words


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def links(path: Path) -> list[str]:
    """What a page links to, generated tables left out (a report's links are tested with it)."""
    return _LINK.findall(re.sub(r"```.*?```", "", path.read_text(), flags=re.S))


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings give, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def same_but_for_numbers(shown: str, got: str) -> bool:
    """Whether an output is what a page shows: any number for a number, any verdict for one, any words for `…`."""
    pattern = re.escape(_worded(shown)).replace("…", ".*")
    return re.fullmatch(pattern, _worded(got), re.S) is not None


def _worded(text: str) -> str:
    measured = re.sub(r"\b(faster|slower|inconclusive|unstable)\b", "faster", text.strip())
    measured = re.sub(r"\bdense_channels_last\b", "dense", measured)  # the faster of two on this machine
    return re.sub(r"[ \t]+", " ", _NUMBER.sub("0", measured))
