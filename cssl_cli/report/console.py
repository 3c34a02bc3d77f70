"""The only place that makes rich consoles: names are text, never markup, emoji codes or control characters."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import IO, Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cssl_cli.errors import escaped_text
from cssl_cli.host.streams import Stream


def make_console(stream: TextIO, *, unpadded: bool = False, width: int | None = None) -> Console:
    """A console that draws on `stream`; `unpadded` removes trailing blanks of table lines."""
    file = cast(IO[str], _Drawing(stream, unpadded))
    return _Console(file=file, width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped_text(segment.text), segment.style)


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
