"""What a document is made of, as data: the templates lay it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LONG = 40  # rows, above which a table is folded

Tone = Literal["", "note", "good", "bad", "warning", "verdict"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    text: what the terminal shows. value, interval: the numbers in full, by which rows are sorted; None for none.
    spread: its deviation or interval; detail: such as its n. Both stand below it in small letters. strong: the best of
    its column.
    """

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    spread: str = ""
    detail: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Head:
    """The head of a column: numeric or text; `detail` stands below it, `about` is what it means."""

    title: str
    numeric: bool = True
    detail: str = ""
    about: str = ""


@dataclass(frozen=True)
class Line:
    """A row; `strong` for one that heads those below it, `ends` where a rule follows."""

    cells: tuple[Cell, ...]
    strong: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. Where it is `sortable`, lines below one that `ends` are baselines, which stay last.

    in_percent: the names of lines say which are shown in per cent.
    """

    kind: ClassVar = "grid"
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    sortable: bool = False
    in_percent: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Text; `depth` is how far it stands in."""

    kind: ClassVar = "paragraph"
    text: str
    tone: Tone = ""
    depth: int = 0


@dataclass(frozen=True)
class Heading:
    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Code:
    """Text as it stands, such as commands or a recipe."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    kind: ClassVar = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figure:
    """What `draw` draws when the page is written; nothing where it gives None."""

    kind: ClassVar = "figure"
    name: str
    draw: Callable[[], Drawing | None]


@dataclass(frozen=True)
class Folded:
    """Blocks behind a line to click on."""

    kind: ClassVar = "folded"
    title: str
    blocks: Sequence[Block]
    is_open: bool = False


Block = Grid | Paragraph | Heading | Code | Facts | Figure | Folded


@dataclass(frozen=True)
class Section:
    """A part of the document with a line in its list of contents."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    title, lead: what it is about. table: the main table, None without numbers; csv: that with all numbers, where it is
    more than the table. behind: what the figures are drawn from, as JSON types.
    """

    title: str
    lead: str
    sections: Sequence[Section] = ()
    table: Grid | None = None
    csv: str | None = None
    behind: Any = None


def folded_where_long(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with long tables behind a line to click on, which says what is under their heading."""
    result: list[Block] = []
    for block in blocks:
        if isinstance(block, Grid) and len(block.lines) > LONG:
            last = result[-1] if result else None
            title = last.text if isinstance(last, Heading) else "The table"
            del result[len(result) - isinstance(last, Heading) :]
            block = Folded(f"{title} ({len(block.lines):,} rows)", [block])
        result.append(block)
    return result


def without_figures(document: Document) -> Document:
    """The same with nothing to draw."""
    sections = []
    for section in document.sections:
        blocks = [block for block in section.blocks if not isinstance(block, Figure)]
        sections += [replace(section, blocks=blocks)] if blocks else []
    return replace(document, sections=sections, behind=None)
