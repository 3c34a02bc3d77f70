"""The only place that makes rich consoles: names are text, never markup, emoji codes or control characters."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import IO, Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cssl_cli.errors import escaped_text
from cssl_cli.host.streams import Stream

LONG_TABLE = 500  # rows

# No line ends between a number and its per cent sign. rich breaks at every space, also at a no-break one: what stands
# there until the lines are made is not a space, and as wide as one.
_PERCENT = re.compile(r"(?<=\d)[ \N{NO-BREAK SPACE}](?=%)")
_KEPT = "\ue000"


def make_console(stream: TextIO, *, unpadded: bool = False, width: int | None = None) -> Console:
    """A console that draws on `stream`; `unpadded` removes trailing blanks of table lines."""
    file = cast(IO[str], _Drawing(stream, unpadded))
    return _Console(file=file, width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        objects = tuple(_unbroken(content) if isinstance(content, Text) else content for content in objects)
        if len(objects) == 1 and isinstance(objects[0], Table) and objects[0].row_count > LONG_TABLE:
            self.file.write("".join(f"{line}\n" for line in _plain_lines(objects[0])))
        else:
            super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text.replace(_KEPT, " ")
            yield segment if segment.control else Segment(escaped_text(text), segment.style)


def _unbroken(text: Text) -> Text:
    result = text.copy()
    result.plain = _PERCENT.sub(_KEPT, text.plain)
    return result


def _plain_lines(grid: Table) -> list[str]:
    """A table without styles, its header ruled off: rich takes half a minute to lay out ten thousand rows."""
    drawn = []
    for column in grid.columns:
        cells = [escaped_text(str(cell)) for cell in (column.header, *column.cells)]
        width = max(map(cell_len, cells))
        pads = [" " * (width - cell_len(cell)) for cell in cells]
        right = column.justify == "right"
        drawn.append([pad + cell if right else cell + pad for cell, pad in zip(cells, pads, strict=True)])
    gap = " " * (1 + grid.padding[1] + grid.padding[3])
    head, *rows = (gap.join(cells).rstrip() for cells in zip(*drawn, strict=True))
    return [head, "─" * max(map(cell_len, (head, *rows))), *rows]


class _Drawing(io.TextIOBase):
    """The stream for rich's output, including its control sequences."""

    def __init__(self, stream: TextIO, unpadded: bool) -> None:
        self.stream, self.unpadded = stream, unpadded

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self.stream.encoding

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> int:
        shown = re.sub(r" +(?=\n)", "", text) if self.unpadded else text
        if isinstance(self.stream, Stream):
            self.stream.draw(shown)
        else:
            self.stream.write(shown)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()
