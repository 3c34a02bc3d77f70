"""The house style of tables: aligned numbers, few rules, few colours; the same text when piped."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cssl_cli.errors import escaped
from cssl_cli.report.console import make_console
from cssl_cli.theory.term import Rounding

# A rule under the header and nothing else.
RULED = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
PIPED_WIDTH = 120
LEAST_WIDTH = 20  # a narrower window, or one without a size, shows nothing useful

SLACK = 1e-8  # relative to a number and to its last digit: rounding in its own computation


def console() -> Console:
    """A console on stdout. When piped, it is wide enough that no table is cut, unless $COLUMNS is set."""
    width = max(shutil.get_terminal_size((PIPED_WIDTH, 24)).columns, LEAST_WIDTH)
    return make_console(sys.stdout, unpadded=not sys.stdout.isatty(), width=width)


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, allow_nan=False))


class _Grid(Table):
    """A table whose cells and headers show each name as one line of text."""

    def add_column(self, header: RenderableType = "", *args: Any, **kwargs: Any) -> None:
        super().add_column(_cell(header), *args, **kwargs)

    def add_row(self, *cells: RenderableType | None, **kwargs: Any) -> None:
        super().add_row(*map(_cell, cells), **kwargs)


def _cell(content: Any) -> Any:
    return escaped(content) if isinstance(content, str) else content


def table(*columns: str, text_columns: int = 1) -> Table:
    """A table whose first `text_columns` columns are text and the others numbers."""
    result = _Grid(box=RULED, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        numeric = position >= text_columns
        result.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return result


def folding(grid: Table, *places: int) -> Table:
    """The table with names in the columns at `places`, which may take several lines, as numbers may not."""
    for place in places:
        grid.columns[place].no_wrap = False
    return grid


def fits(out: Console, grid: Table) -> bool:
    """Whether a table fits without cutting or folding a cell."""
    return _natural_width(out, grid) <= out.width


def _natural_width(out: Console, grid: Table) -> int:
    """The table's width with every cell on one line: the same as rich measures, but much faster."""
    gap = 1 + grid.padding[1] + grid.padding[3]
    widths = [max(_length(out, cell) for cell in (column.header, *column.cells)) for column in grid.columns]
    return sum(widths) + gap * (len(widths) - 1)


def _length(out: Console, cell: RenderableType) -> int:
    if isinstance(cell, str):
        return cell_len(cell)
    return cell.cell_len if isinstance(cell, Text) else out.measure(cell).maximum


def compacted(out: Console, grid: Table) -> Table:
    """The table, with its columns closer together if it would not fit otherwise."""
    if not fits(out, grid):
        grid.padding = (0, 0)
    return grid


def print_widest(out: Console, versions: Sequence[Table]) -> None:
    """Print the first table that fits, else the last; each has less in its cells than the one before."""
    *wider, narrowest = versions
    out.print(next((grid for grid in wider if fits(out, compacted(out, grid))), compacted(out, narrowest)))


def without_interval(cell: str) -> str:
    """A cell of `number` or `percent` without its interval."""
    return re.sub(r" +\[.*?\]", "", cell)


def percent(value: float | None, interval: Sequence[float] | None = None, *, rounded: Rounding = "nearest") -> str:
    """A share as a percentage, with its interval."""
    if value is None:
        return "–"
    text = _rounded(100 * value, lambda share: f"{share:.1f}", rounded)
    return text if interval is None else f"{text}  [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def number(value: float | None, interval: Sequence[float] | None = None, *, rounded: Rounding = "nearest") -> str:
    """A term of the theory to three decimals, with its interval."""
    if value is None:
        return "–"
    text = _rounded(value, _decimals, rounded)
    return text if interval is None else f"{text}  [{_decimals(interval[0])}, {_decimals(interval[1])}]"


def _rounded(value: float, shown: Callable[[float], str], rounded: Rounding) -> str:
    """The number as `shown`, or one unit of its last digit higher or lower if rounding went the wrong way."""
    text = shown(value)
    if rounded == "nearest":
        return text
    nearest = Decimal(text.replace(",", ""))
    unit = Decimal(1).scaleb(int(nearest.as_tuple().exponent))
    missing = (value - float(nearest)) * (1 if rounded == "up" else -1)
    if not missing > SLACK * max(abs(value), float(unit)):
        return text
    return shown(float(nearest + unit if rounded == "up" else nearest - unit))


def _decimals(value: float) -> str:
    if abs(value) < 1e-12:  # rounding
        return "0.000"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.1e}"
    # Small numbers keep two significant digits instead of becoming 0.000.
    return (
        f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.4f}"
    )


def plural(count: int, noun: str) -> str:
    """ "1 view", "1,000 views"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def images_of(result: Mapping[str, Any]) -> str:
    """ "1,000 test images" that a result was measured on."""
    return plural(result["num_images"], f"{result['part']} image" if result["part"] else "image")


def note(target: Console, text: str) -> None:
    """A dim remark under a table, wrapped at words."""
    target.print(Text(text, style="dim"))


def heading(target: Console, text: str) -> None:
    target.print()
    target.print(Text(text, style="bold"))
