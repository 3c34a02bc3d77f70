"""Several runs side by side: accuracy against each term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.report.figures.style import INK, class_marker, grid, legend_beside, new_figure, plain
from cssl_cli.runs.results import counted_in_words, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 30  # runs that a legend can name
NAME_LENGTH = 28


def comparison(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Accuracy over each term; None where no run has both an accuracy and a term.

    rows: {"name": str, "accuracy": a share of 1 or None, "terms": {title: number or None}}.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row["terms"]))
    titles = [title for title in titles if any(None not in _point(row, title) for row in rows)]
    if not titles:
        return None
    missing = any(None in _point(row, title) for row in rows for title in titles)
    caption = counted_in_words(len(rows), "run") + "; images, views and direction of error as in the analysis of each."
    if missing:
        caption += " Hollow, at an edge: a run without that number."
    columns = min(len(titles), 3 if len(titles) > 4 else 2)
    lines = -(-len(titles) // columns)
    figure = new_figure("Accuracy against the terms", caption, (6.0, max(4.0, 1.3 + 1.6 * lines)))
    for i, axes in enumerate(figure.subplots(lines, columns, squeeze=False, sharey=True).flat):
        if i >= len(titles):
            axes.remove()
            continue
        _draw(axes, rows, titles[i])
        if i % columns == 0:
            axes.set_ylabel("accuracy (%)")
    if len(rows) <= MAX_NAMED:
        legend_beside(figure, [_handle(str(row["name"]), i) for i, row in enumerate(rows)], size=6)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    for i, row in enumerate(rows):
        term, accuracy = _point(row, title)
        looks = class_marker(i, 5) | {"mec": INK, "mew": 0.5}
        if term is not None and accuracy is not None:
            axes.plot(term, accuracy, **looks)
            continue
        looks |= {"mfc": "white", "mec": looks["color"], "mew": 1.1, "clip_on": False, "zorder": 4}
        if term is not None:
            axes.plot(term, 0, transform=axes.get_xaxis_transform(), **looks)
        elif accuracy is not None:
            axes.plot(0, accuracy, transform=axes.get_yaxis_transform(), **looks)
    axes.set_xlabel(plain(title, 48))
    axes.margins(0.08)
    grid(axes)


def _point(row: Mapping[str, Any], title: str) -> tuple[float | None, float | None]:
    accuracy = number(row.get("accuracy"))
    return number(row["terms"].get(title)), None if accuracy is None else 100 * accuracy


def _handle(name: str, i: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], mec=INK, mew=0.4, label=plain(name, NAME_LENGTH), **class_marker(i, 4.5))
