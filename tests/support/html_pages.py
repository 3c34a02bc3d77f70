"""A page of HTML as a reader meets it: its tables, its text, its tags with their attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = {"meta", "input", "br", "link", "img"}


@dataclass
class ReadCell:
    """text: without what stands below in small letters, which is `small`. value: the number for machines."""

    text: str = ""
    small: str = ""
    value: float | None = None
    title: str = ""


@dataclass
class ReadTable:
    heads: list[ReadCell] = field(default_factory=list)
    rows: list[list[ReadCell]] = field(default_factory=list)

    def by_name(self) -> dict[str, dict[str, ReadCell]]:
        """Cells by the text of their row's first and of their column's head."""
        names = [head.text for head in self.heads]
        return {row[0].text: dict(zip(names, row, strict=True)) for row in self.rows}


class Page(HTMLParser):
    """What was read; refuses tags that do not close one another."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[ReadTable] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self._cell: ReadCell | None = None
        self.feed(text)
        self.close()
        assert not self._open

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag in EMPTY:
            return
        self._open.append(tag)
        if tag == "table":
            self.tables.append(ReadTable())
        elif tag == "tr" and "tbody" in self._open:
            self.tables[-1].rows.append([])
        elif tag in ("th", "td"):
            self._cell = ReadCell(title=attributes.get("title", ""))
            table = self.tables[-1]
            (table.heads if "thead" in self._open else table.rows[-1]).append(self._cell)
        elif tag == "data" and self._cell is not None:
            self._cell.value = float(attributes["value"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._cell is not None and "label" not in self._open:
            if "small" in self._open:
                self._cell.small += data
            else:
                self._cell.text += data
