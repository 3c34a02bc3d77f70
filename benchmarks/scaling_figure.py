"""The figure of benchmarks/scaling.py: small multiples on logarithmic axes, with the slopes to expect as thin lines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.style import BLUE, GRAY, drawing, grid, new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
HEIGHT = 1.75  # inches of a row


class Panel(NamedTuple):
    """One measurement: for each of the `sizes` on the axis, the result of each round; the expected `slopes`."""

    title: str
    axis: str
    sizes: Sequence[int]
    values: Sequence[Sequence[float]]
    slopes: Sequence[float]


def draw(panels: Sequence[Panel], machine: Mapping[str, Any], path: Path) -> list[Path]:
    """Write the figure beside `path`, as SVG and as PNG."""
    rows = -(-len(panels) // COLUMNS)
    with drawing():
        figure = new_figure("How cost grows", caption(machine), (6.0, 0.6 + HEIGHT * rows))
        axes_of = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
        for axes, panel in zip(axes_of, panels, strict=False):
            draw_panel(axes, panel)
        for axes in axes_of[len(panels) :]:
            axes.remove()
        path.parent.mkdir(parents=True, exist_ok=True)
        return save(figure, path.parent, path.stem)


def caption(machine: Mapping[str, Any]) -> str:
    where = machine["processor"] if machine["device"] == "cuda" else f"{machine['threads']} threads"
    return plain(
        f"Medians over the rounds, bars from the least to the greatest; {where}, training in {machine['precision']}. "
        "Thin lines through the largest size: the power of the size to expect where nothing else counts; for the "
        "analysis, the first and the second."
    )


def draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    medians = [statistics.median(values) for values in panel.values]
    below = [median - min(values) for median, values in zip(medians, panel.values, strict=True)]
    above = [max(values) - median for median, values in zip(medians, panel.values, strict=True)]
    for slope in panel.slopes:
        expected = [medians[-1] * (size / panel.sizes[-1]) ** slope for size in panel.sizes]
        axes.plot(panel.sizes, expected, color=GRAY, lw=0.6, ls=(0, (4, 2)), zorder=1)
    axes.errorbar(
        panel.sizes, medians, yerr=[below, above], color=BLUE, marker="o", ms=3.2, lw=1.1, elinewidth=0.8, capsize=1.5
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(panel.sizes), [f"{size:,}" for size in panel.sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    middle = (low * high) ** 0.5
    axes.set_ylim(min(low, middle / 2), max(high, middle * 2))  # a tiny change should look tiny
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_title(panel.title, size=7.5)
    axes.set_xlabel(panel.axis)
    grid(axes)


if __name__ == "__main__":
    raise SystemExit("draws for benchmarks/scaling.py: run that with --figure PATH.svg")
