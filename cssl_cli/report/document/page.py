"""A console that records what a report prints, as blocks of a document: the same words and numbers, laid out later."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cssl_cli.errors import escaped, escaped_text
from cssl_cli.report.document.blocks import Block, Cell, Grid, Head, Heading, Line, Paragraph, Tone

ENDLESS = 1_000_000  # wide enough for the widest version of every table
LEAST_SORTED = 4  # rows that are worth sorting
_TONES: dict[str, Tone] = {"dim": "note", "red": "bad", "yellow": "warning", "green": "good"}


class Page(Console):
    """What `print` is given becomes `blocks`; nothing is drawn."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), width=ENDLESS, highlight=False, markup=False, emoji=False)
        self.blocks: list[Block] = []

    def print(self, *objects: Any, style: Any = None, **_: Any) -> None:
        for thing in objects:
            self.blocks += _blocks_of(thing, str(style or ""))


def _blocks_of(thing: Any, style: str, depth: int = 0) -> Iterator[Block]:
    if isinstance(thing, Table):
        yield _grid(thing)
    elif isinstance(thing, Padding):
        yield from _blocks_of(thing.renderable, style, depth + max(1, thing.left // 2))
    else:
        text = thing if isinstance(thing, Text) else Text(str(thing))
        yield from _words(text, style or str(text.style), depth)


def _words(text: Text, style: str, depth: int) -> Iterator[Block]:
    said = escaped_text(text.plain).strip()
    if not said:
        return
    if style == "bold":
        yield Heading(said)
        return
    tone: Tone = next((_TONES[one] for one in (style, *(str(span.style) for span in text.spans)) if one in _TONES), "")
    for line in said.splitlines():
        yield Paragraph(line, tone, depth)


def _grid(grid: Table) -> Grid:
    heads = [Head(_plain(column.header), numeric=column.justify == "right") for column in grid.columns]
    columns = [list(column.cells) for column in grid.columns]
    lines = [
        Line(tuple(_cell(cell) for cell in cells), strong=str(row.style or "") == "bold", ends=row.end_section)
        for row, cells in zip(grid.rows, zip(*columns, strict=True), strict=True)
    ]
    return Grid(tuple(heads), tuple(lines), sortable=_is_list(heads, lines))


def _is_list(heads: Sequence[Head], lines: Sequence[Line]) -> bool:
    """Whether rows may stand in any order: they have names, and none heads others or belongs to another."""
    grouped = any(line.strong or line.ends or line.cells[0].text.startswith(" ") for line in lines)
    return len(lines) >= LEAST_SORTED and bool(heads) and not heads[0].numeric and not grouped


def _cell(cell: Any) -> Cell:
    strong = isinstance(cell, Text) and "bold" in str(cell.style)
    # Blanks before a label say that it belongs to the row above.
    text = _plain(cell).rstrip()
    return Cell(text, _number(text), strong=strong)


def _number(text: str) -> float | None:
    """The number that a cell begins with, to sort by."""
    found = re.match(r"[<≤≥±+\s]*([-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return float(found[1].replace(",", "").replace("−", "-")) if found else None


def _plain(cell: Any) -> str:
    return escaped(cell.plain if isinstance(cell, Text) else str(cell))
