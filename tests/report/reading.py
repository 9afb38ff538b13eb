"""The page read back by the standard library's parser, as a browser without JavaScript would show it."""

from __future__ import annotations

import json
from html.parser import HTMLParser


class Reader(HTMLParser):
    """Tables by the id of their block, elements with their attributes, the text, and the data for the script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.data: dict[str, list[list[str]]] = {}  # rows that only the script shows
        self.text = ""
        self._block = ""
        self._rows: list[list[str]] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.elements.append((tag, given))
        self._inside = tag
        if tag == "div" and given.get("class") == "block":
            self._block = given.get("id") or ""
        if tag == "table":
            self._rows = self.tables.setdefault(self._block, [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside in ("td", "th"):
            self._rows[-1][-1] += data
        elif self._inside == "script" and self.elements[-1][1].get("type") == "application/json":
            self.data[self._block] = json.loads(data)
        if self._inside not in ("script", "style"):
            self.text += data

    def rows(self, block: str) -> list[dict[str, str]]:
        """The rows of a table, by their headings."""
        head, *rows = self.tables[block]
        return [dict(zip(head, row, strict=True)) for row in [*rows, *self.data.get(block, [])]]
