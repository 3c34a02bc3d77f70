"""Terms and accuracy through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, grid, legend_above, new_figure
from cssl_cli.runs.results import gaps, number, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_FROM = 30  # ratio of largest to smallest value from which an axis is logarithmic


class Line(NamedTuple):
    key: str
    label: str
    color: str
    marker: str
    style: Any = "-"


class Panel(NamedTuple):
    title: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    may_be_logarithmic: bool = False


_ACCURACIES = (
    Line("knn", "accuracy, k-NN", BLUE, "o"),
    Line("nearest_center", "accuracy, nearest class centre", ORANGE, "s", (0, (4, 1.5))),
)
PANELS = (
    Panel("Accuracy (%)", _ACCURACIES, 100),
    Panel("Alignment (squared distance)", (Line("alignment", "", GREEN, "^"),)),
    Panel(r"Mean $\mu_k\cdot\mu_l$, $k\neq l$", (Line("mean_inner_product", "", VERMILION, "D"),)),
    Panel("Spread within / between classes", (Line("within_over_between", "", PURPLE, "v"),), 1, True),
    Panel(r"$R_\varepsilon$ (share of images)", (Line("R_epsilon", "", BLUE, "o"),)),
    Panel("RankMe (dimensions)", (Line("rankme", "", SKY, "s"),)),
)


def training(trace: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Small multiples over the epochs, one per recorded term."""
    records = [record for record in trace if isinstance(record, Mapping) and number(record.get("epoch")) is not None]
    records.sort(key=lambda record: (record["epoch"], number(record.get("step")) or 0))
    panels = [panel for panel in PANELS if any(_values(records, line) for line in panel.lines)]
    if not panels:
        return None
    columns = 3 if len(panels) > 4 else 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure = new_figure("Through training", _caption(records, panels), (6.0, 4.0 if rows == 2 else 3.0))
    grid_of_axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for i, axes in enumerate(grid_of_axes.flat):
        if i >= len(panels):
            axes.remove()
            continue
        _draw(axes, records, panels[i])
        if i + columns >= len(panels):  # nothing is below it
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
    handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    if handles:
        legend_above(figure, handles)
    return figure


def _draw(axes: Axes, records: Sequence[Mapping[str, Any]], panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    seen = []
    lines = [line for line in panel.lines if _values(records, line)]
    for line in lines:
        values = [number(record.get(line.key)) for record in records]
        seen += [value for value in values if value is not None]
        scaled = gaps(None if value is None else panel.scale * value for value in values)
        every = 1 if len(epochs) <= 25 else len(epochs) // 8
        axes.plot(
            epochs, scaled, color=line.color, marker=line.marker, ms=3.2, markevery=every, ls=line.style, lw=1.1,
            label=line.label,
        )  # fmt: skip
    axes.set_title(panel.title, size=7.5)
    if panel.may_be_logarithmic and min(seen) > 0 and max(seen) > LOG_FROM * min(seen):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    if min(epochs) == max(epochs):
        axes.set_xticks(epochs[:1])
    grid(axes)


def _values(records: Sequence[Mapping[str, Any]], line: Line) -> list[float]:
    return [value for record in records if (value := number(record.get(line.key))) is not None]


def _caption(records: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> str:
    keys = {line.key for panel in panels for line in panel.lines if _values(records, line)}
    epsilon = next((value for record in records if (value := number(record.get("epsilon"))) is not None), None)
    said = [sample(*records) or "Few images and views, the same at every epoch"]
    if "R_epsilon" in keys:
        at = "" if epsilon is None else f" (ε = {epsilon:g})"
        said.append(f"$R_\\varepsilon${at} is too low for the full augmentation")
    if "rankme" in keys:
        said.append("RankMe is too low for few images")
    if "nearest_center" in keys:
        said.append("nearest centre: centres of one half of the images, tested on the other")
    unbiased = {"alignment": "alignment", "mean_inner_product": "inner products"}
    named = [words for key, words in unbiased.items() if key in keys]
    if named:
        said.append(f"{' and '.join(named)} {'is' if named == ['alignment'] else 'are'} unbiased")
    return "; ".join(said) + "."
