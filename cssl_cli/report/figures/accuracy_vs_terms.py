"""The rows of a sweep: accuracy against each term, best predictors first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.host.files import explained, require_writable
from cssl_cli.report.figures.point_labels import NAME_LENGTH, Labelled, place_labels, short_names, told_apart
from cssl_cli.report.figures.style import (
    GRAY,
    INK,
    KINDS,
    LIGHT,
    REMEDY,
    class_marker,
    drawing,
    grid,
    legend_above,
    new_figure,
    plain,
    save,
)
from cssl_cli.runs.results import counted_in_words, number, part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "accuracy_vs_terms"
MAX_PANELS = 12
MAX_LABELLED = 12  # rows; more names would cover the points
MAX_VECTORS = 1000  # points of a panel that an SVG has as shapes; beyond, as an image
PANEL_HEIGHT = 1.75  # inches
CROSSED: dict[str, Any] = {"marker": "x", "mew": 1.3}  # marker of a negative control
GAP = (math.nan, math.nan)  # where a line is broken
RowContent = Mapping[str, Any]

Bar = tuple[float, float]


class Point(NamedTuple):
    """A row in one panel: its term and accuracy in %, each with the ends of its bar, if any.

    control: whether the row is a negative control. of_seed: whether a bar is the interval of a single seed, not the
    deviation over seeds.
    """

    term: float
    accuracy: float
    term_bar: Bar | None
    accuracy_bar: Bar | None
    of_seed: bool
    reference: float | None
    group: int
    row: int
    control: bool


def draw_accuracy_vs_terms(
    rows: Sequence[RowContent],
    screened: Mapping[str, Any],
    accuracy: str,
    folder: Path,
    *,
    accuracy_title: str,
    term_titles: Mapping[str, str],
    name: str = NAME,
    kept: dict[str, Figure] | None = None,
) -> list[Path]:
    """Write `name`.png and `name`.svg in `folder`; returns the files, none if no row has both numbers.

    The figure goes into `kept`, too, for those who draw it elsewhere. For the other arguments see `accuracy_vs_terms`.
    Raises InputError or RunError if a file cannot be written.
    """
    with drawing():
        figure = accuracy_vs_terms(rows, screened, accuracy, accuracy_title=accuracy_title, term_titles=term_titles)
        if figure is None:
            return []
        require_writable(folder, REMEDY)
        if kept is not None:
            kept[name] = figure
        return save(figure, folder, name)


def remove_accuracy_vs_terms(folder: Path, name: str = NAME) -> None:
    """Remove the files of an earlier figure, which no longer match the numbers."""
    for kind in KINDS:
        path = folder / f"{name}.{kind}"
        if path.exists():  # in a read-only folder, removing a missing file is an error
            with explained(path, REMEDY):
                path.unlink(missing_ok=True)


def accuracy_vs_terms(
    rows: Sequence[RowContent],
    screened: Mapping[str, Any],
    accuracy: str,
    *,
    accuracy_title: str,
    term_titles: Mapping[str, str],
) -> Figure | None:
    """Small multiples, one panel per term in the order of `screened`; None if no row has both numbers.

    rows: {"row": its name, "group": the name of its group, "cells": {quantity: {"mean", "sd"} or None}, "reference":
    {accuracy: a share of 1, as published}, "control": whether it is a negative control}; the last two are optional.
    Accuracies are shares of 1. screened: the result of `rank_correlation.screening.screen_accuracy` for this accuracy.
    `accuracy_title` and `term_titles` name the quantities; a term without a title is shown by its name.
    """
    every, rows = rows, _with_accuracy(rows, accuracy)
    groups = list(dict.fromkeys(str(row.get("group", "")) for row in rows))
    panels = [(entry, _points(rows, groups, accuracy, entry["term"])) for entry in screened["terms"]]
    panels = [(entry, points) for entry, points in panels if points]
    if not panels:
        return None
    left_out, panels = panels[MAX_PANELS:], panels[:MAX_PANELS]
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    lines = -(-len(panels) // columns)
    names = short_names([(str(row["row"]), str(row.get("group", ""))) for row in rows])
    caption = " ".join([_caption(rows, panels, names, [entry["term"] for entry, _ in left_out]), *about_stopped(every)])
    height = max(3.2, 1.15 + PANEL_HEIGHT * lines)
    figure = new_figure(f"{plain(accuracy_title)} against each term", caption, (6.0, height))
    every_point = [point for _, points in panels for point in points]
    handles = _handles(
        groups,
        with_reference=any(point.reference is not None for point in every_point),
        with_control=any(point.control for point in every_point),
    )
    if handles:
        legend_above(figure, handles, columns=min(len(handles), 5))
    drawn = []
    for position, axes in enumerate(figure.subplots(lines, columns, squeeze=False, sharey=True).flat):
        if position >= len(panels):
            axes.remove()
            continue
        entry, points = panels[position]
        _draw(axes, points, str(term_titles.get(entry["term"], entry["term"])), entry)
        if position % columns == 0:
            axes.set_ylabel(f"{plain(accuracy_title)} (%)")
        else:
            axes.tick_params(labelleft=False)
        drawn.append((axes, points))
    if len(rows) <= MAX_LABELLED:
        marks = [name.mark for name in names]
        place_labels(figure, [(axes, [_labelled(point, marks) for point in points]) for axes, points in drawn])
    return figure


def about_stopped(rows: Sequence[RowContent]) -> list[str]:
    """A sentence about the rows that successive halving stopped; none where there are none."""
    stopped = sum(row.get("stopped") is not None for row in rows)
    return [f"Not drawn: {counted_in_words(stopped, 'row')} stopped early for k-NN accuracy."] if stopped else []


def is_drawn(rows: Sequence[RowContent], screened: Mapping[str, Any], accuracy: str) -> bool:
    """Whether `accuracy_vs_terms` has anything to draw."""
    return any(
        number(part(row, "cells", entry["term"]).get("mean")) is not None
        for row in _with_accuracy(rows, accuracy)
        for entry in screened["terms"]
    )


def _with_accuracy(rows: Sequence[RowContent], accuracy: str) -> list[RowContent]:
    """Unfinished rows are neither counted nor in the legend."""
    return [row for row in rows if number(part(row, "cells", accuracy).get("mean")) is not None]


def _points(rows: Sequence[RowContent], groups: Sequence[str], accuracy: str, term: str) -> list[Point]:
    points = []
    for i, row in enumerate(rows):
        x, y = part(row, "cells", term), part(row, "cells", accuracy)
        mean_x, mean_y = number(x.get("mean")), number(y.get("mean"))
        if mean_x is not None and mean_y is not None:
            published = number(part(row, "reference").get(accuracy))
            points.append(
                Point(
                    mean_x,
                    100 * mean_y,
                    _bar(x, 1),
                    _bar(y, 100),
                    any(number(cell.get("sd")) is None and cell.get("interval") for cell in (x, y)),
                    None if published is None else 100 * published,
                    groups.index(str(row.get("group", ""))),
                    i,
                    bool(row.get("control")),
                )
            )
    return points


def _bar(cell: Mapping[str, Any], scale: float) -> Bar | None:
    """One deviation over seeds each way, or the interval of a single seed; None if neither is known."""
    mean, sd = number(cell.get("mean")) or 0.0, number(cell.get("sd"))
    if sd is not None:
        return scale * (mean - sd), scale * (mean + sd)
    low, high = (number(end) for end in cell.get("interval") or (None, None))
    # An estimate may lie outside its interval; the bar begins at the point.
    return None if low is None or high is None else (scale * min(low, mean), scale * max(high, mean))


def _labelled(point: Point, marks: Sequence[str]) -> Labelled:
    """The point's name, and what else is drawn around it."""
    left, right = point.term_bar or (point.term,) * 2
    bottom, top = point.accuracy_bar or (point.accuracy,) * 2
    about = [(left, point.accuracy), (right, point.accuracy), (point.term, bottom), (point.term, top)]
    return Labelled(point.term, point.accuracy, marks[point.row], about, point.reference)


def _draw(axes: Axes, points: Sequence[Point], title: str, entry: Mapping[str, Any]) -> None:
    size = 4.5 if len(points) <= 20 else 3.2
    as_pixels = len(points) > MAX_VECTORS
    for group in sorted({point.group for point in points}):
        looks = class_marker(group, size) | {"rasterized": as_pixels}
        of_group = [point for point in points if point.group == group]
        _bars(axes, of_group, {"color": looks["color"], "rasterized": as_pixels})
        hollow = looks | {"mfc": "none", "mec": looks["color"], "mew": 0.8}
        _markers(axes, [(p.term, p.reference) for p in of_group if p.reference is not None], hollow)
        crossed = looks | CROSSED | {"mec": looks["color"], "zorder": 4}  # above the others, whatever their group
        _markers(axes, [(p.term, p.accuracy) for p in of_group if p.control], crossed)
        filled = looks | {"mec": INK, "mew": 0.4, "zorder": 3}
        _markers(axes, [(p.term, p.accuracy) for p in of_group if not p.control], filled)
    looks = {"fontsize": 6.1 if "tau" in entry["within"] else 6.8, "linespacing": 1.35, "pad": 3}
    axes.set_title(f"{plain(title, 34)}\n{_said(entry)}", **looks)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(0.12, 0.1)
    grid(axes)


def _bars(axes: Axes, points: Sequence[Point], looks: Mapping[str, Any]) -> None:
    """All bars, and all lines to published accuracies, as one line each with gaps: an artist a point takes minutes."""
    bars, to_published = [], []
    for point in points:
        if point.term_bar is not None:
            bars += [(x, point.accuracy) for x in point.term_bar] + [GAP]
        if point.accuracy_bar is not None:
            bars += [(point.term, y) for y in point.accuracy_bar] + [GAP]
        if point.reference is not None:
            to_published += [(point.term, point.accuracy), (point.term, point.reference), GAP]
    if bars:
        axes.plot(*zip(*bars, strict=True), lw=0.6, solid_capstyle="butt", zorder=2, **looks)
    if to_published:
        axes.plot(*zip(*to_published, strict=True), **{**looks, "color": LIGHT}, lw=0.7, zorder=1)


def _markers(axes: Axes, places: Sequence[tuple[float, float]], looks: Mapping[str, Any]) -> None:
    if places:
        axes.plot(*zip(*places, strict=True), **looks)


def _said(entry: Mapping[str, Any]) -> str:
    """τ with its interval over all rows, and within groups."""
    pooled, within = entry["pooled"], entry["within"]
    if "tau" not in pooled:
        return "τ undefined"
    text = f"τ {_signed(pooled['tau']['value'])}"
    if pooled["tau"]["interval"]:
        text += " [{}, {}]".format(*map(_signed, pooled["tau"]["interval"]))
    return text + (f"; within {_signed(within['tau']['value'])}" if "tau" in within else "")


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _handles(groups: Sequence[str], *, with_reference: bool, with_control: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    if len(groups) > 1:
        handles = [
            Line2D([], [], mec=INK, mew=0.4, label=plain(g, 24), **class_marker(i, 4.5)) for i, g in enumerate(groups)
        ]
    if with_reference:
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                ls="",
                ms=4.5,
                mfc="none",
                mec=GRAY,
                mew=0.8,
                label="published",
            )
        )
    if with_control:
        handles.append(Line2D([], [], ls="", ms=4.5, **CROSSED | {"mec": GRAY}, label="negative control"))
    return handles


def _caption(rows: Sequence[RowContent], panels: Sequence[Any], names: Sequence[Any], left_out: Sequence[str]) -> str:
    points = [point for _, of_panel in panels for point in of_panel]
    num_compared = sum(not row.get("control") for row in rows)
    ordered = any("tau" in entry["pooled"] for entry, _ in panels)
    sentences = [f"{counted_in_words(num_compared, 'row')}{', sorted by |τ| over all of them' if ordered else ''}."]
    if any("tau" in entry["within"] for entry, _ in panels):
        sentences.append("Within: τ over pairs of rows of one group.")
    if any(entry["pooled"].get("tau", {}).get("interval") for entry, _ in panels):
        sentences.append("In brackets a 95 % interval over rows.")
    barred = [point for point in points if point.term_bar or point.accuracy_bar]
    if any(not point.of_seed for point in barred):
        sentences.append("Bars: sample standard deviation over seeds.")
    if any(point.of_seed for point in barred):
        sentences.append(
            f"Bars{' of a single seed' if any(not point.of_seed for point in barred) else ''}: 95 % intervals over "
            "images, without the spread between seeds."
        )
    if any(point.control for point in points):
        sentences.append("Crosses: negative controls, which enter no τ.")
    if any(point.reference is not None for point in points):
        sentences.append("Hollow: published accuracies, at our value of the term.")
    if len(rows) <= MAX_LABELLED and any(name.mark != name.name for name in names):
        short = told_apart([name.name for name in names])
        key = dict.fromkeys(
            f"{name.mark}:\N{NO-BREAK SPACE}{plain(shown, NAME_LENGTH)}"
            for name, shown in zip(names, short, strict=True)
        )
        sentences.append(f"{'; '.join(key)}.")
    if left_out:
        sentences.append(f"Not drawn: {', '.join(plain(term) for term in left_out)}.")
    return " ".join(sentences)
