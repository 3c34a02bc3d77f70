"""A document as one page of HTML that needs nothing else: no script, no request, figures inside."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cssl_cli
from cssl_cli.errors import escaped_text
from cssl_cli.report.document.blocks import Block, Document, Figure, Folded, Grid, Line

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
MARK = "cssl-made-of"  # the name of the digest in the page's head


def digest(document: Document) -> str:
    """A digest of all that the page shows, and of the code that makes it."""
    content = json.dumps([_plain(document), version("matplotlib"), cssl_cli.__version__], sort_keys=True)
    found = hashlib.sha256(content.encode("utf-8", "backslashreplace"))
    sources = [*HERE.rglob("*.py"), *TEMPLATES.iterdir(), *(HERE.parent / "figures").glob("*.py")]
    for source in sorted(path for path in sources if path.is_file()):
        found.update(source.read_bytes())
    return found.hexdigest()


def _plain(value: Any) -> Any:
    """Documents as JSON types, without what draws the figures, which follows from `behind`."""
    if is_dataclass(value):
        return [type(value).__name__, *(_plain(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if callable(value) else value


def render(document: Document) -> str:
    """The page."""
    page = _environment().get_template("page.html")
    most = max((len(grid.heads) for grid in _grids(document)), default=0)
    text = page.render(document=document, made_of=digest(document), mark=MARK, most_columns=most, numbered=_Numbers())
    return text + "\n"


def _grids(document: Document) -> Iterator[Grid]:
    def within(blocks: Sequence[Block]) -> Iterator[Grid]:
        for block in blocks:
            if isinstance(block, Grid):
                yield block
            elif isinstance(block, Folded):
                yield from within(block.blocks)

    for section in document.sections:
        yield from within(section.blocks)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_text,
    )
    helpers: dict[str, Any] = {
        "cssl_version": cssl_cli.__version__,
        "orders": _orders,
        "sorts": _sorts,
        "figure": _figure,
        "css": _css,
    }
    made.globals.update(helpers)
    return made


def _text(value: Any) -> Any:
    """What is put into the page: no control character, no lone surrogate."""
    return escaped_text(value) if type(value) is str else value


def _css() -> Any:
    from markupsafe import Markup

    return Markup((TEMPLATES / "style.css").read_text("utf-8"))


def _figure(asked: Figure) -> dict[str, Any] | None:
    """A figure with its element, which may stand in the page as it is: its text is escaped where it was written."""
    from markupsafe import Markup

    from cssl_cli.report.document.drawn import drawn

    found = drawn(asked)
    return None if found is None else {"name": found.name, "title": found.title, "svg": Markup(found.svg)}


class _Numbers:
    """Counts the tables of a page."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


def _orders(grid: Grid) -> list[str]:
    """For each line the places that it takes when rows are sorted by each column, as declarations of CSS.

    A line without a number in a column has no place there; baselines have none at all, and stay last.
    """
    end = next((at for at, line in enumerate(grid.lines, start=1) if line.ends), len(grid.lines))
    sorted_lines = grid.lines[:end]
    places: list[list[str]] = [[] for _ in grid.lines]
    for column, head in enumerate(grid.heads):
        keys = {at: _key(line, column, head.numeric) for at, line in enumerate(sorted_lines)}
        present = sorted({key for key in keys.values() if key is not None})
        ranks = {key: rank for rank, key in enumerate(present, start=1)}
        for at, key in keys.items():
            if key is not None:
                places[at].append(f"--c{column}:{ranks[key]}")
    return [";".join(of_line) for of_line in places]


def _sorts(grid: Grid) -> list[bool]:
    """Whether a column has anything to sort by."""
    columns = enumerate(grid.heads)
    return [any(_key(line, at, head.numeric) is not None for line in grid.lines) for at, head in columns]


def _key(line: Line, column: int, numeric: bool) -> Any:
    cell = line.cells[column]
    return cell.value if numeric else cell.text.casefold()
