"""Names beside points: short, and placed where they cover the least."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.style import INK, lay_out, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 5.0  # points
NAME_LENGTH = 28  # letters of a name in a key or a margin; of a longer one the middle is left out
MARK_LENGTH = 7  # letters that fit beside a point
_REACH = 4.5  # points between a point and its name
_PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


class Name(NamedTuple):
    """The text beside a point, and the name it stands for: the same if short enough."""

    mark: str
    name: str


class Labelled(NamedTuple):
    """A point (x, y) with its name; the ends of its error bars `about` it, and the y of a mark above or below it."""

    x: float
    y: float
    mark: str
    about: Sequence[tuple[float, float]] = ()
    other: float | None = None


def short_names(rows: Sequence[tuple[str, str]]) -> list[Name]:
    """For rows (name, group): their names without the group's, or numbers if one of these would be too long.

    Rows that differ only in their group share a name, and so a number.
    """
    names = [_without(name, group) for name, group in rows]
    if all(len(name) <= MARK_LENGTH for name in names):
        return [Name(name, name) for name in names]
    numbered = {name: str(position) for position, name in enumerate(dict.fromkeys(names), start=1)}
    return [Name(numbered[name], name) for name in names]


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, without what all begin and end with if the long ones could not be told apart once they are cut."""
    if len({plain(name, NAME_LENGTH) for name in names}) == len(set(names)):
        return list(names)
    head = _in_common(names)
    tail = _in_common([name[head:][::-1] for name in names])
    return ["…" * (head > 0) + name[head : len(name) - tail] + "…" * (tail > 0) for name in names]


def _in_common(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def _without(name: str, group: str) -> str:
    for shorter in (name.removeprefix(f"{group}-"), name.removesuffix(f"-{group}")):
        if group and shorter != name and shorter:
            return shorter
    return name


def place_labels(figure: Figure, panels: Sequence[tuple[Any, Sequence[Labelled]]]) -> None:
    """Write the name of each point in each panel beside it, where it covers the fewest points, bars and names."""
    lay_out(figure)  # positions are known only then
    scale = figure.dpi / 72
    for axes, points in panels:
        to_page = axes.transData.transform
        frame = axes.get_window_extent()
        marks = [(point.x, y) for point in points for y in (point.y, point.other) if y is not None]
        taken = [_box(x, y, 5 * scale, 5 * scale) for x, y in map(to_page, marks)]
        for point in points:
            ends = [to_page(end) for end in point.about]
            taken += [_between(one, other, 0.5 * scale) for one, other in zip(ends[::2], ends[1::2], strict=True)]
        for point in points:
            left, up = to_page((point.x, point.y))
            width, height = 0.62 * SIZE * scale * len(point.mark), SIZE * scale
            boxes = []
            for side, rise in _PLACES:
                reach = _REACH * scale * (0.75 if side and rise else 1)
                center = left + side * (reach + width / 2), up + rise * (reach + height / 2)
                boxes.append(_box(*center, width, height))
            costs = [sum(_overlap(box, other) for other in taken) + _outside(box, frame) for box in boxes]
            best = min(range(len(boxes)), key=costs.__getitem__)
            taken.append(boxes[best])
            side, rise = _PLACES[best]
            reach = _REACH * (0.75 if side and rise else 1)
            axes.annotate(
                plain(point.mark),
                (point.x, point.y),
                xytext=(side * reach, rise * reach),
                textcoords="offset points",
                fontsize=SIZE,
                color=INK,
                ha={-1: "right", 0: "center", 1: "left"}[side],
                va={-1: "top", 0: "center", 1: "bottom"}[rise],
                annotation_clip=False,
            ).set_in_layout(False)


Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _between(one: Sequence[float], other: Sequence[float], half: float) -> Box:
    """A line between two points, twice `half` thick."""
    return (
        min(one[0], other[0]) - half,
        min(one[1], other[1]) - half,
        max(one[0], other[0]) + half,
        max(one[1], other[1]) + half,
    )


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, frame: Any) -> float:
    """How much of a box lies outside its panel, which is worse than covering something."""
    inside = _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
    return 3 * ((box[2] - box[0]) * (box[3] - box[1]) - inside)
