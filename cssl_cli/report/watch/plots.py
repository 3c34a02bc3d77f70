"""Small plots in characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

LEAST_WIDTH, LEAST_HEIGHT = 36, 8  # of a plot with its frame and labels
MOST_HEIGHT = 18
_LINES = 4  # of title, frame and epochs

_ASCII = str.maketrans("┌┐└┘─│", "++++-|")


class Curve(NamedTuple):
    """Numbers by epoch, at least two, and how one is `shown`."""

    title: str
    points: Sequence[tuple[int, float]]
    shown: Callable[[float], str]


def plot_grid(curves: Sequence[Curve], width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """As many of the curves as fit, in rows and columns; at most `height` lines of at most `width` characters."""
    columns = max(min(width // LEAST_WIDTH, len(curves)), 1)
    rows = min(height // LEAST_HEIGHT, -(-len(curves) // columns))
    if rows < 1:
        return []
    each, tall = width // columns, min(height // rows, MOST_HEIGHT)
    lines: list[str] = []
    for first in range(0, min(rows * columns, len(curves)), columns):
        plots = [plot(curve, each - 1, tall, ascii_only=ascii_only) for curve in curves[first : first + columns]]
        lines += [" ".join(parts).rstrip() for parts in zip(*plots, strict=True)]
    return lines


def plot(curve: Curve, width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """A curve in `height` lines of `width` characters, with the greatest and the least number beside it.

    The labels are ours: those of uniplot round 0.75 to 1.
    """
    from uniplot import plot_to_string

    epochs, values = zip(*curve.points, strict=True)
    high, low = curve.shown(max(values)), curve.shown(min(values))
    gutter = max(len(high), len(low))
    drawn = plot_to_string(
        xs=epochs,
        ys=values,
        width=max(width - gutter - 3, 1),
        height=height - _LINES,
        lines=True,
        x_labels=False,
        y_labels=False,
        x_gridlines=[],
        y_gridlines=[],
        character_set="ascii" if ascii_only else "block",
        color=False,
    )
    top, *rows, bottom = (drawn.translate(_ASCII) if ascii_only else drawn).splitlines()
    labels = [high, *[""] * (len(rows) - 2), low]
    first, last = f"epoch {epochs[0]}", str(epochs[-1])
    lines = [
        f" {curve.title}  {curve.shown(values[-1])}",
        top,
        *(f"{row} {label:>{gutter}}" for row, label in zip(rows, labels, strict=True)),
        bottom,
        f" {first}{last.rjust(len(top) - 2 - len(first))}",
    ]
    return [line[:width].ljust(width) for line in lines]
