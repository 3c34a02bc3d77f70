"""Small plots in characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST_WIDTH, LEAST_HEIGHT = 36, 8  # of a plot with its frame and labels
MOST_HEIGHT = 18
_FRAME = 4  # lines of title, frame and labels


class Curve(NamedTuple):
    """Numbers by epoch, with a title."""

    title: str
    points: Sequence[tuple[int, float]]


def plot_grid(curves: Sequence[Curve], width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """As many of the curves as fit, in rows and columns; at most `height` lines of at most `width` characters."""
    columns = max(min(width // LEAST_WIDTH, len(curves)), 1)
    rows = min(height // LEAST_HEIGHT, -(-len(curves) // columns))
    if rows < 1 or width < 2 * _FRAME:
        return []
    each, tall = width // columns, min(height // rows, MOST_HEIGHT)
    lines: list[str] = []
    for first in range(0, min(rows * columns, len(curves)), columns):
        plots = [plot(curve, each - 1, tall, ascii_only=ascii_only) for curve in curves[first : first + columns]]
        lines += [" ".join(parts).rstrip() for parts in zip(*plots, strict=True)]
    return lines


def plot(curve: Curve, width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """A curve in exactly `height` lines of exactly `width` characters."""
    from uniplot import plot_to_string

    drawn = plot_to_string(
        xs=[epoch for epoch, _ in curve.points],
        ys=[value for _, value in curve.points],
        width=width,
        height=height - _FRAME,
        lines=True,
        line_length_hard_cap=width,
        x_gridlines=[],
        y_gridlines=[],
        character_set="ascii" if ascii_only else "block",
        color=False,
    )
    lines = [f" {curve.title}", *drawn.splitlines()]
    return [line[:width].ljust(width) for line in (lines + [""] * height)[:height]]
