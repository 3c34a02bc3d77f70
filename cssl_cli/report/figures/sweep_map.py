"""A map of a sweep: rows by quantities, the best accuracy first, each cell coloured by its rank in the column."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.host.files import require_writable
from cssl_cli.report.figures.accuracy_vs_terms import about_stopped
from cssl_cli.report.figures.point_labels import NAME_LENGTH, told_apart
from cssl_cli.report.figures.style import (
    BLUE,
    INK,
    REMEDY,
    VERMILION,
    drawing,
    new_figure,
    plain,
    save,
)
from cssl_cli.runs.results import counted_in_words, number, part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "sweep_map"
LEAST_ROWS = 2
MAX_PRINTED = 40  # rows whose values are printed in their cells
ROW_HEIGHT, MAX_HEIGHT = 0.165, 7.0  # inches, of one row and of all
LABEL_HEIGHT = 0.085  # inches that a row's name needs
HEAD_HEIGHT = 0.62  # inches, of the tilted names of the columns
MISSING = "#BBBBBB"
CONTROL = " (control)"
RowContent = Mapping[str, Any]


class MapColumn(NamedTuple):
    """A quantity: its name in the cells, its title, how a value is printed, and the sign that the theory predicts.

    sign: −1 if the theory expects small values with good accuracies; else, also for accuracies, great ones come first.
    """

    name: str
    title: str
    shown: Callable[[float], str]
    sign: int | None = None


def draw_sweep_map(
    rows: Sequence[RowContent],
    columns: Sequence[MapColumn],
    accuracy: str,
    folder: Path,
    *,
    accuracy_title: str,
    kept: dict[str, Figure] | None = None,
) -> list[Path]:
    """Write `NAME`.png and .svg in `folder`; returns the files, none if there is nothing to compare.

    The figure goes into `kept`, too. For the other arguments see `sweep_map`. Raises InputError or RunError if a file
    cannot be written.
    """
    with drawing():
        figure = sweep_map(rows, columns, accuracy, accuracy_title=accuracy_title)
        if figure is None:
            return []
        if kept is not None:
            kept[NAME] = figure
        require_writable(folder, REMEDY)
        return save(figure, folder, NAME)


def rows_of_map(rows: Sequence[RowContent], accuracy: str) -> list[RowContent]:
    """The rows that are drawn: those with the accuracy, the greatest first, then negative controls; none of one row.

    Equal ones keep their order.
    """
    known = [row for row in rows if _mean(row, accuracy) is not None]
    known.sort(key=lambda row: (bool(row.get("control")), -(_mean(row, accuracy) or 0.0)))
    return known if len(known) >= LEAST_ROWS else []


def sweep_map(
    rows: Sequence[RowContent], columns: Sequence[MapColumn], accuracy: str, *, accuracy_title: str
) -> Figure | None:
    """Rows × columns, coloured by rank; None with fewer than two rows that have the accuracy.

    rows: as of `accuracy_vs_terms`. columns: in order; those that no row has are left out. Negative controls stand last
    and have no rank.
    """
    shown = rows_of_map(rows, accuracy)
    columns = [column for column in columns if any(_mean(row, column.name) is not None for row in shown)]
    if not shown or not columns:
        return None
    height = min(ROW_HEIGHT * len(shown), MAX_HEIGHT)
    title = f"{plain(accuracy_title)}: the rows, and the rank of each in every column"
    figure = new_figure(title, _caption(rows, shown, columns), (6.0, 1.05 + HEAD_HEIGHT + height))
    axes = figure.subplots()
    printed = len(shown) <= MAX_PRINTED
    _draw(axes, shown, columns, printed=printed)
    _name_rows(axes, shown, height)
    return figure


def _draw(axes: Axes, rows: Sequence[RowContent], columns: Sequence[MapColumn], *, printed: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("rank", [VERMILION, "#FFFFFF", BLUE]).with_extremes(bad=MISSING)
    by_column = [ranks(rows, column) for column in columns]
    matrix = [[_or_nan(of_column[position]) for of_column in by_column] for position in range(len(rows))]
    axes.imshow(matrix, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="none")
    size = 5.6 if len(columns) <= 12 else 4.6
    for position, row in enumerate(rows if printed else ()):
        for number_of, column in enumerate(columns):
            value, rank = _mean(row, column.name), by_column[number_of][position]
            text = "–" if value is None else column.shown(value).replace("-", "−")
            strong = rank is not None and abs(rank - 0.5) > 0.3
            axes.text(
                number_of, position, text, ha="center", va="center", fontsize=size, color="white" if strong else INK
            )
    axes.set_xticks(range(len(columns)), [plain(column.title, 30) for column in columns])
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set(rotation=35, ha="left", rotation_mode="anchor", fontsize=6.2)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    for edge in range(1, len(columns)):
        axes.axvline(edge - 0.5, color="white", lw=0.8)
    for edge in range(1, len(rows) if printed else 0):
        axes.axhline(edge - 0.5, color="white", lw=0.5)


def _name_rows(axes: Axes, rows: Sequence[RowContent], height: float) -> None:
    """The names of the rows, of as many as there is room for, evenly spaced."""
    every = -(-len(rows) * LABEL_HEIGHT // height)
    places = list(range(0, len(rows), max(1, int(every))))
    short = told_apart([str(row["row"]) for row in rows])
    names = [plain(short[place], NAME_LENGTH) + (CONTROL if rows[place].get("control") else "") for place in places]
    axes.set_yticks(places, names, fontsize=6.2 if len(rows) <= MAX_PRINTED else 5.2)


def ranks(rows: Sequence[RowContent], column: MapColumn) -> list[float | None]:
    """For each row its rank in the column, from 1 (best, as the theory predicts) to 0; None if missing, or a control.

    None, too, for a mean over only some of the row's seeds, which may be selective. Equal values share the mean of
    their ranks; if all are equal, it is ½.
    """
    values = [
        None if row.get("control") or _is_of_some_seeds(row, column.name) else _mean(row, column.name) for row in rows
    ]
    known = sorted(value for value in values if value is not None)
    span = max(len(known) - 1, 1)
    found: list[float | None] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        below, up_to = bisect_left(known, value), bisect_right(known, value)
        rank = (below + up_to - 1) / 2 / span if len(known) > 1 else 0.5
        found.append(1 - rank if column.sign == -1 else rank)
    return found


def _mean(row: RowContent, quantity: str) -> float | None:
    return number(part(row, "cells", quantity).get("mean"))


def _is_of_some_seeds(row: RowContent, quantity: str) -> bool:
    """Whether other quantities of the row are known of more of its seeds."""
    cells = part(row, "cells")
    count = part(cells, quantity).get("n", 0)
    return 0 < count < max(cell.get("n", 0) for cell in cells.values() if cell)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _caption(rows: Sequence[RowContent], shown: Sequence[RowContent], columns: Sequence[MapColumn]) -> str:
    compared = sum(not row.get("control") for row in shown)
    several = any((number(part(row, "cells", column.name).get("n")) or 0) > 1 for row in shown for column in columns)
    means = "; means over seeds" if several else ""
    sentences = [
        f"{counted_in_words(compared, 'row')}, the greatest accuracy first{means}. Colour: the rank within "
        "the column, from blue (the best, where the arrow says which end that is, else the greatest) to red; a term "
        "that predicts the accuracy runs from blue to red like it."
    ]
    if any(_mean(row, column.name) is None for row in shown for column in columns) or len(shown) > compared:
        sentences.append("Gray: no number, or a negative control, which has no rank.")
    if any(_is_of_some_seeds(row, column.name) for row in shown for column in columns):
        sentences.append("Gray with a number: of some of the seeds only, which has no rank either.")
    return " ".join([*sentences, *about_stopped(rows)])
