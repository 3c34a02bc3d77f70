"""The images as the encoder sees them, on the plane of their largest spread."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.report.figures.style import (
    BLUE,
    CLASS_COLORS,
    GRAY,
    INK,
    MARKERS,
    SKY,
    class_marker,
    grid,
    legend_beside,
    new_figure,
    plain,
)
from cssl_cli.runs.results import class_names, counted_in_words, numbers, part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WRITTEN = 12  # classes whose names are written beside their centres
MAX_MARKED = len(CLASS_COLORS) * len(MARKERS)  # classes that have a colour and marker of their own
MAX_VECTOR = 4000  # with more points, the SVG holds them as a bitmap
NAME_LENGTH = 16
Point = tuple[float, float]


def projection(content: Mapping[str, Any]) -> Figure | None:
    """The images on their first two principal components, coloured by class, and the means of the classes."""
    plane = part(content, "projection")
    points = _points(plane.get("points"))
    if not points or not any(points):
        return None
    labels = _labels(plane.get("labels"), len(points))
    centers = _points(plane.get("centers")) if labels is not None else []
    names = [] if labels is None else class_names(content, max(1 + max(labels), len(centers)))
    names = [plain(name, NAME_LENGTH) for name in names]
    num_classes = len(names)
    if num_classes > MAX_MARKED:
        return _of_many_classes(plane, points, centers, num_classes)
    by_legend = num_classes > MAX_WRITTEN
    columns = 1 if num_classes <= 24 else 2 if num_classes <= 60 else 3
    size = (6.0, max(4.6, 0.115 * -(-num_classes // columns) + 0.8))
    placed = {label: point for label, point in enumerate(centers) if point is not None}
    figure = new_figure("Projection of the features", _caption(plane, len(points), bool(placed)), size)
    axes = figure.add_subplot()
    _draw_points(axes, points, labels, num_classes)
    for label, (x, y) in placed.items():
        for edge, edge_width in (("white", 2.2), (INK, 0.9)):
            axes.plot(x, y, mec=edge, mew=edge_width, zorder=4, **class_marker(label, 6.5 if by_legend else 8))
    _label_axes(axes, plane)
    if names and (by_legend or len(placed) < num_classes or not _write_names(figure, axes, names, placed)):
        handles = [_handle(name, label) for label, name in enumerate(names)]
        legend_beside(figure, handles, columns, 7 if num_classes <= 24 else 5.6)
    return figure


def _of_many_classes(
    plane: Mapping[str, Any], points: Sequence[Point | None], centers: Sequence[Point | None], num_classes: int
) -> Figure:
    """All images alike and all class means alike: more classes than there are marks would be taken for one another."""
    placed = [point for point in centers if point is not None]
    said = f"{num_classes:,} classes, too many to be told apart by marks. "
    figure = new_figure("Projection of the features", said + _caption(plane, len(points), bool(placed)), (6.0, 4.6))
    axes = figure.add_subplot()
    size = 2.6 if len(points) <= 3000 else 1.8
    looks: dict[str, Any] = {"ls": "", "marker": "o", "mew": 0, "rasterized": len(points) > MAX_VECTOR}
    axes.plot(*zip(*filter(None, points), strict=True), ms=size, color=SKY, alpha=0.6, **looks)
    if placed:
        axes.plot(*zip(*placed, strict=True), ls="", marker="o", ms=4, color=BLUE, mec=INK, mew=0.7, zorder=4)
    _label_axes(axes, plane)
    return figure


def _caption(plane: Mapping[str, Any], num_images: int, has_centers: bool) -> str:
    shares = [share for share in numbers(plane.get("explained")) or [] if share is not None]
    shown = f": the plane shows {100 * sum(shares):.0f} % of the variance" if len(shares) == 2 else ""
    outlined = "; outlined: class means" if has_centers else ""
    distances = "Distances come out too low" if sum(shares) < 0.995 else "Distances are nearly whole"
    return f"{counted_in_words(num_images, 'image')}, 1 view (clean){outlined}. {distances}{shown}."


def _label_axes(axes: Axes, plane: Mapping[str, Any]) -> None:
    method = plane.get("method")
    name = plain(method).removesuffix("s") if isinstance(method, str) else "coordinate"
    shares = numbers(plane.get("explained")) or []
    for i, (ordinal, write) in enumerate((("first", axes.set_xlabel), ("second", axes.set_ylabel))):
        share = shares[i] if i < len(shares) else None
        write(f"{ordinal} {name}" + ("" if share is None else f" ({100 * share:.0f} % of the variance)"))
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    grid(axes)


def _draw_points(axes: Axes, points: Sequence[Point | None], labels: list[int] | None, num_classes: int) -> None:
    looks: dict[str, Any] = {
        "alpha": 0.6,
        "mew": 0.25,
        "mec": INK,
        "rasterized": len(points) > MAX_VECTOR,
    }
    size = 3.6 if len(points) <= 600 else 2.6 if len(points) <= 3000 else 1.8
    if labels is None:
        axes.plot(*zip(*filter(None, points), strict=True), ls="", marker="o", ms=size, color=GRAY, **looks)
        return
    for label in range(num_classes):
        members = [point for point, other in zip(points, labels, strict=True) if other == label and point is not None]
        if members:
            axes.plot(*zip(*members, strict=True), **class_marker(label, size), **looks)


def _write_names(figure: Figure, axes: Axes, names: Sequence[str], centers: Mapping[int, Point]) -> bool:
    """Write each name beside its centre, clear of other names and centres; if that is impossible, write none: False."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()  # fixes the layout, so that positions on the page are known
    renderer = canvas.get_renderer()
    page = {label: axes.transData.transform(point) for label, point in centers.items()}
    reach = 6.0 * figure.dpi / 72  # from the middle of a marker to just beyond its edge
    if any(math.dist(one, other) < reach for one, other in itertools.combinations(page.values(), 2)):
        return False  # a name could refer to either
    taken = [Bbox.from_bounds(x - reach, y - reach, 2 * reach, 2 * reach) for x, y in page.values()]
    frame = axes.get_window_extent()
    texts = []
    for label, name in enumerate(names):
        text = axes.annotate(
            name, centers[label], (0, 0), textcoords="offset points", size=7.5, weight="bold", zorder=6, color=INK,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        texts.append(text)
        for (x, y), ha, va in _PLACES:
            text.xyann = (x, y)
            text.set(ha=ha, va=va)
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            for drawn in texts:
                drawn.remove()
            return False
    return True


# Positions for a name, nearest first: offset in points, and alignment.
_PLACES = [
    ((far * x, far * y), {-1: "right", 0: "center", 1: "left"}[x], {-1: "top", 0: "center", 1: "bottom"}[y])
    for far in (6.5, 11.0)
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]


def _handle(name: str, label: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], mec=INK, mew=0.4, label=name, **class_marker(label, 4.5))


def _points(value: Any) -> list[Point | None]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    read = [numbers(entry) or [] for entry in value]
    return [(p[0], p[1]) if len(p) == 2 and p[0] is not None and p[1] is not None else None for p in read]


def _labels(value: Any, length: int) -> list[int] | None:
    labels = numbers(value)
    if labels is None or len(labels) != length or any(label is None or label < 0 for label in labels):
        return None
    return [int(label) for label in labels if label is not None]
