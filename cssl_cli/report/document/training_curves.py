"""Loss, learning rate and images/s over the epochs: the records of pretraining as a figure and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.report.document.blocks import Block, Cell, Figure, Folded, Grid, Head, Line, Paragraph
from cssl_cli.report.layout import plural
from cssl_cli.runs.results import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

MOST_LINES = 200  # of the table
Records = Sequence[Mapping[str, Any]]


def training_blocks(metrics: Records) -> list[Block]:
    """How pretraining went; empty without records."""
    if not metrics:
        return []
    last = metrics[-1]
    seconds = sum(record["seconds"] for record in metrics)
    said = (
        f"{plural(last['epoch'], 'epoch')}, {plural(last['step'], 'step')}; {seconds:,.0f} s of training recorded, "
        f"{last['images_per_second']:,.0f} images/s in the last epoch."
    )
    return [
        Paragraph(said),
        *([Figure("pretraining", lambda: _curves(metrics))] if len(metrics) > 1 else []),
        Folded("Epoch by epoch", [_table(metrics)]),
    ]


def _table(metrics: Records) -> Grid:
    every = -(-len(metrics) // MOST_LINES)
    shown = [*metrics[:-1:every], metrics[-1]]
    names = list(dict.fromkeys(name for record in shown for name in record["terms"]))
    heads = ["epoch", "step", *names, "learning rate", "images/s", "seconds"]
    return Grid(tuple(Head(head) for head in heads), tuple(Line(tuple(_cells(one, names))) for one in shown))


def _cells(record: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    terms = [number(record["terms"].get(name)) for name in names]
    values = [
        (f"{record['epoch']:,}", record["epoch"]),
        (f"{record['step']:,}", record["step"]),
        *(("–" if term is None else f"{term:.4f}", term) for term in terms),
        (f"{record['learning_rate']:.3g}", record["learning_rate"]),
        (f"{record['images_per_second']:,.0f}", record["images_per_second"]),
        (f"{record['seconds']:,.1f}", record["seconds"]),
    ]
    return [Cell(text, value) for text, value in values]


def _curves(metrics: Records) -> Drawing:
    from cssl_cli.report.figures.style import BLUE, GREEN, ORANGE, grid, new_figure

    figure = new_figure("Pretraining", "Means over each epoch.", (6.0, 2.2))
    epochs = [record["epoch"] for record in metrics]
    panels = {
        "loss": ([number(record["terms"].get("loss")) for record in metrics], BLUE),
        "learning rate": ([record["learning_rate"] for record in metrics], ORANGE),
        "images/s": ([record["images_per_second"] for record in metrics], GREEN),
    }
    drawn = {title: panel for title, panel in panels.items() if None not in panel[0]}
    for axes, (title, (values, color)) in zip(
        figure.subplots(1, len(drawn), squeeze=False).flat, drawn.items(), strict=True
    ):
        axes.plot(epochs, values, color=color, marker="o" if len(epochs) < 15 else None)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", nbins=5, integer=True)
        grid(axes)
    return figure
